"""Tools of a local model: how they reach the prompt, how calls are parsed, and that nothing else becomes a call."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.chat_model.tool_calling import CallStream, WrittenCall, chosen_tools, read_calls
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.chat_model.tools import CALL, now, population, schemas

HALLIN = WrittenCall("population", {"town": "Hallin"})


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "calls", "rest"),
    [
        (CALL, [HALLIN], ""),
        (f"Let me look.\n{CALL}", [HALLIN], "Let me look."),
        (f"{CALL}\n{CALL.replace('Hallin', 'Lod')}", [HALLIN, WrittenCall("population", {"town": "Lod"})], ""),
        (CALL.removesuffix("</tool_call>"), [HALLIN], ""),
        (CALL.replace('"', "'"), [HALLIN], ""),
        ('<tool_call>{"name": "population", "parameters": {"town": "Hallin"}}</tool_call>', [HALLIN], ""),
        ('<tool_call>{"name": "population", "arguments": "{\\"town\\": \\"Hallin\\"}"}</tool_call>', [HALLIN], ""),
        ('<tool_call>```json\n{"name": "now"}\n```</tool_call>', [WrittenCall("now", {})], ""),
        ('{"name": "population", "parameters": {"town": "Hallin"}}', [HALLIN], ""),
        ('```json\n{"name": "population", "arguments": {"town": "Hallin"}}\n```', [HALLIN], ""),
        ('[{"name": "now", "arguments": {}}, {"name": "now"}]', [WrittenCall("now", {}), WrittenCall("now", {})], ""),
        # With the tag, an unknown tool is a call too; the agent answers it with the list of tools.
        ('<tool_call>{"name": "wikipedia", "arguments": {}}</tool_call>', [WrittenCall("wikipedia", {})], ""),
    ],
)
def test_calls_are_parsed_in_every_form_that_models_write(text, calls, rest):
    assert read_calls(text, {"population", "now"}) == (calls, rest)


@pytest.mark.parametrize(
    "text",
    [
        "The town has 1200 inhabitants.",
        '{"name": "Hallin", "inhabitants": 1200}',  # JSON that names no tool
        '[{"name": "now"}, {"name": "Hallin"}]',
        "<tool_call>population(town='Hallin')</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>",
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "now", "arguments": {"a": ',
        "<tool_call>{'name': 'now', 'arguments': {'a': {1, 2}}}</tool_call>",
        "<tool_call>{'name': __import__('os').system('true')}</tool_call>",
        "<tool_call>" + "[" * 50_000,
        "<tool_call>" + "[" * 15_000 + "</tool_call>",
        'As in {"name": "now"}, braces may stand in a sentence.',
    ],
)
def test_text_that_cannot_be_parsed_as_a_call_stays_text(text):
    assert read_calls(text, {"population", "now"}) == ([], text)


def pushed(pieces, names=("population", "now"), begun=""):
    """Return the text that a stream of pieces shows, the calls at its end, and the number of live chunks."""
    stream = CallStream(names, begun)
    shown = []
    for piece in pieces:
        shown += stream.push(ChatGenerationChunk(message=AIMessageChunk(content=piece)), piece)
        if stream.over:
            break
    live = len(shown)
    left, called = stream.finish()
    messages = [c.message for c in [*shown, *left]]
    calls = [(c["name"], json.loads(c["args"])) for m in messages for c in m.tool_call_chunks]
    assert called == bool(calls)
    return "".join(m.content for m in messages), calls, live


def test_text_before_a_call_streams_and_the_call_does_not():
    pieces = ["Let", " me", " see", ".", "\n", "<", "tool", "_", "call", ">", *CALL.removeprefix("<tool_call>")]
    text, calls, live = pushed(pieces)
    assert (text.strip(), calls, live) == ("Let me see.", [("population", {"town": "Hallin"})], 5)


def test_made_up_text_after_a_call_ends_the_generation():
    stream = CallStream({"population"})
    made_up = list(CALL + "\n<tool_response>7</tool_response> So it has 7.")
    taken = 0
    for piece in made_up:
        stream.push(ChatGenerationChunk(message=AIMessageChunk(content=piece)), piece)
        taken += 1
        if stream.over:
            break
    assert taken == len(CALL) + len("\n<tool_r")  # until it can no longer be another call
    left, called = stream.finish()
    assert called
    assert "".join(c.message.content for c in left) == ""


def test_consecutive_calls_are_all_parsed():
    text, calls, _ = pushed(list(f"{CALL}\n{CALL.replace('Hallin', 'Lod')} I wait."))
    assert text == ""
    assert [c[1]["town"] for c in calls] == ["Hallin", "Lod"]


def test_a_bare_call_ends_with_its_brace():
    text, calls, live = pushed(list('{"name": "now", "arguments": {}} and so on'))
    assert (text, calls, live) == ("", [("now", {})], 0)


def test_a_forced_call_continues_its_prefilled_beginning():
    text, calls, _ = pushed(
        list('Hallin"}}\n</tool_call> More.'), begun='<tool_call>\n{"name": "population", "arguments": {"town": "'
    )
    assert (text, calls) == ("", [("population", {"town": "Hallin"})])


@example(["</tool_call>{", "<"])  # the end of a call that never began
@given(
    st.lists(
        st.sampled_from([*"<{[`> \n", "tool", "_call", "<tool_call>", "</", '{"name"', "Hallin", "."]), max_size=25
    )
)
def test_text_without_a_call_is_unchanged(pieces):
    text, calls, _ = pushed(pieces)
    if not calls:
        assert text == "".join(pieces)


# ---------------------------------------------------------------------- choices


@pytest.mark.parametrize(
    ("choice", "offered", "forced"),
    [
        (None, 2, []),
        ("auto", 2, []),
        ("none", 0, []),
        ("any", 2, ["population", "now"]),
        ("required", 2, ["population", "now"]),
        (True, 2, ["population", "now"]),
        ("now", 2, ["now"]),
        ({"type": "function", "function": {"name": "now"}}, 2, ["now"]),
    ],
)
def test_tool_choices_follow_langchain(choice, offered, forced):
    tools, must = chosen_tools(schemas(population, now), choice)
    assert (len(tools), [t["function"]["name"] for t in must]) == (offered, forced)


@pytest.mark.parametrize("choice", ["tomorrow", {"type": "tool"}, 7])
def test_an_unknown_tool_choice_is_refused_with_the_known_ones(choice):
    with pytest.raises(ConfigurationError, match="known: 'auto', 'none', 'any', and the tools population"):
        LocalChatModel().bind_tools([population], tool_choice=choice)
    with pytest.raises(ConfigurationError, match=r"the tools \(none\)"):
        LocalChatModel().bind_tools([], tool_choice="any")
