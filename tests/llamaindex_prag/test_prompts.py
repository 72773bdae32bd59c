"""The prompt that training and answering share, and the parsing of answers."""

import copy

import pytest

from llamaindex_prag.prompts import INSTRUCTION, LABEL, chat_ids, clean_answer, conversation_ids, prompt_ids, user_text
from tests.tiny import tiny_tokenizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 1871.", "1871"),
        ("So the answer is: the Pepperbox.", "the Pepperbox"),
        ("Answer: Washington, D.C.", "Washington, D.C."),
        ("J. R. Tolkien wrote it. He was born", "J. R. Tolkien wrote it"),
        ("3.5 metres", "3.5 metres"),
        ('\n "A white crane"\nmore', "A white crane"),
        ("", ""),
        ("The answer", "The answer"),
    ],
)
def test_an_answer_is_its_first_sentence_without_lead_or_quotes(text, expected):
    assert clean_answer(text) == expected


def test_passages_come_before_the_question_and_nothing_else_changes():
    alone, told = user_text("Who?"), user_text("Who?", ["One.", " Two. "])
    assert told == alone.replace("Question:", "One.\n\nTwo.\n\nQuestion:")


def test_the_instruction_becomes_the_system_message_if_the_template_has_one():
    tokenizer = tiny_tokenizer()
    ids = prompt_ids(tokenizer, "Who?", ["P."])
    spoken = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": f"P.\n\nQuestion: Who?\n{LABEL}"}]
    assert ids == tokenizer.apply_chat_template(spoken, add_generation_prompt=True, return_dict=False)
    assert chat_ids(tokenizer, "Sum it up.") == conversation_ids(tokenizer, [("user", "Sum it up.")])


def test_a_template_without_system_messages_gets_the_instruction_with_the_question():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    text = user_text("Who?")
    assert prompt_ids(tokenizer, "Who?") == tokenizer(text, add_special_tokens=False).input_ids
