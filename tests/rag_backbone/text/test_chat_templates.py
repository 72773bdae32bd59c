"""Conversations under chat templates of many kinds: no text is lost, and refusals are reported in our own words."""

import copy
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.errors import ConfigurationError
from rag_backbone.text.chat_templates import OPENING, alternating, render_chat
from tests.tiny import tiny_tokenizer

BODY = "<{{ m['role'] }}>{{ m['content'] | trim }}</>"
END = "{% if add_generation_prompt %}<assistant>{% endif %}"
TURNS_TAKEN = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}" + TURNS_TAKEN + BODY + "{% endfor %}" + END
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}<system>{{ system }}</>"
    "{% for m in rest %}" + TURNS_TAKEN + BODY + "{% endfor %}" + END
)
NO_SYSTEM_ONLY = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    + BODY
    + "{% endfor %}"
    + END
)
DROPS_SYSTEM = "{% for m in messages %}{% if m['role'] != 'system' %}" + BODY + "{% endif %}{% endfor %}" + END
NEEDS_USER = (
    "{% if not (messages | selectattr('role', 'equalto', 'user') | list) %}"
    "{{ raise_exception('No user query found') }}{% endif %}{% for m in messages %}" + BODY + "{% endfor %}" + END
)
PARTS = (
    "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}</>{% endfor %}" + END
)
TYPED = (
    "{% for m in messages %}{{ {'system': 1, 'user': 2, 'assistant': 3}[m['role']] + 0 }}" + BODY + "{% endfor %}" + END
)
TEMPLATES = {
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "no-system": NO_SYSTEM_ONLY,
    "drops-system": DROPS_SYSTEM,
    "needs-user": NEEDS_USER,
    "parts": PARTS,
    "knows-three-roles": TYPED,
    "none": None,
}


def tokenizer_with(template):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def test_a_template_that_accepts_the_conversation_gets_it_unchanged():
    turns = said(("system", "Be brief."), ("user", "One."), ("user", "Two."), ("assistant", "Yes."), ("user", "Why?"))
    expected = tiny_tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert render_chat(tiny_tokenizer(), turns) == expected


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        (GEMMA, [("system", "Be brief."), ("user", "Who?")], "<user>Be brief.\n\nWho?</><assistant>"),
        (NO_SYSTEM_ONLY, [("system", "S"), ("user", "A"), ("user", "B")], "<user>S\n\nA</><user>B</><assistant>"),
        (GEMMA, [("user", "A"), ("user", "B")], "<user>A\n\nB</><assistant>"),
        (GEMMA, [("assistant", "Hi!"), ("user", "A")], f"<user>{OPENING}</><assistant>Hi!</><user>A</><assistant>"),
        (
            GEMMA,
            [("system", "S"), ("assistant", "Hi!"), ("user", "A")],
            "<user>S</><assistant>Hi!</><user>A</><assistant>",
        ),
        (
            GEMMA,
            [("user", "A"), ("assistant", "B"), ("system", "S")],
            "<user>A</><assistant>B</><user>S</><assistant>",
        ),
        (GEMMA, [("developer", "S"), ("user", "A")], "<user>S\n\nA</><assistant>"),
        (
            GEMMA,
            [("user", "A"), ("model", "B"), ("user", "C")],
            "<user>A</><assistant>B</><user>C</><assistant>",
        ),
        (MISTRAL, [("system", "S"), ("user", "A"), ("user", "B")], "<system>S</><user>A\n\nB</><assistant>"),
        (
            MISTRAL,
            [("system", "S"), ("user", "A"), ("assistant", "B"), ("system", "T"), ("user", "C")],
            "<system>S</><user>A</><assistant>B</><user>T\n\nC</><assistant>",
        ),
        (MISTRAL, [("system", "S")], "<system>S</><assistant>"),
        (
            GEMMA,
            [("user", "A"), ("assistant", "B"), ("tool", "41"), ("user", "C")],
            "<user>A</><assistant>B</><user>Result of the function: 41\n\nC</><assistant>",
        ),
        (TYPED, [("user", "A"), ("critic", "B")], "2<user>A\n\nB</><assistant>"),
        (DROPS_SYSTEM, [("system", "S."), ("user", "A")], "<user>S.\n\nA</><assistant>"),
        (NEEDS_USER, [("system", "S")], "<user>S</><assistant>"),
        (PARTS, [("system", "S"), ("user", "A")], "<system>S</><user>A</><assistant>"),
        (None, [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C")], "S\n\nA\nAnswer: B\n\nC\nAnswer:"),
        (None, [("user", "Question: Who?\nShort answer:")], "Question: Who?\nShort answer:"),
    ],
)
def test_a_restrictive_template_gets_the_whole_conversation_in_another_shape(template, turns, expected):
    assert render_chat(tokenizer_with(template), said(*turns)) == expected


ROLES = st.sampled_from(["system", "user", "assistant", "tool", "developer", "chatbot", "function"])


@pytest.mark.parametrize("kind", TEMPLATES)
@given(roles=st.lists(ROLES, min_size=1, max_size=7))
def test_no_text_of_any_conversation_is_lost(kind, roles):
    turns = said(*((role, f"text-{i}-{role}.") for i, role in enumerate(roles)))
    text = render_chat(tokenizer_with(TEMPLATES[kind]), turns)
    positions = [text.find(t["content"]) for t in turns]
    assert min(positions) >= 0
    assert "{'type'" not in text


@given(roles=st.lists(ROLES, min_size=1, max_size=7))
def test_roles_alternate_and_the_given_conversation_is_not_modified(roles):
    turns = said(*((role, str(i)) for i, role in enumerate(roles)))
    before = copy.deepcopy(turns)
    spoken = [t["role"] for t in alternating(turns)]
    assert turns == before
    rest = spoken[1:] if spoken[0] == "system" else spoken
    assert all(role == ("user", "assistant")[i % 2] for i, role in enumerate(rest))


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('never') }}",
        "{{ messages[0]['content'] + 1 }}",
        "{% for m in messages %}",
        "{{ 1 // 0 }}",
        {"rag": "{{ messages }}"},
        "{{ messages[99]['role']['x'] }}",
    ],
)
def test_the_error_for_a_template_that_refuses_every_shape_names_the_model(template):
    with pytest.raises(ConfigurationError, match=r"chat template of my-model refuses .* system, user") as caught:
        render_chat(tokenizer_with(template), said(("system", "S"), ("user", "A")), name="my-model")
    assert caught.value.__cause__ is not None


def test_omitted_reasoning_and_encoded_results_do_not_count_as_lost(caplog):
    thinking = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}</>{% endfor %}"
    turns = said(("user", "A"), ("assistant", "<think>Hm.</think>B"), ("user", "C"))
    assert render_chat(tokenizer_with(thinking), turns) == "<user>A</><assistant>B</><user>C</>"
    encoded = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | tojson }}</>{% endfor %}"
    turns = said(("user", "A"), ("tool", 'He said "no".\nThat is all.'))
    assert "<tool>" in render_chat(tokenizer_with(encoded), turns)
    assert not caplog.records


def test_text_that_a_template_omits_in_every_shape_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        render_chat(tokenizer_with("{{ messages[-1]['content'][:2] }}"), said(("user", "A question.")), name="odd")
    assert "the chat template of odd omits or changes parts" in caplog.text


def test_an_empty_conversation_is_refused():
    with pytest.raises(ConfigurationError, match="no messages"):
        render_chat(tiny_tokenizer(), [])
