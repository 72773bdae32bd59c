"""The node that drafts: what it asks of the model, and what it records."""

import asyncio

import pytest

from langgraph_dynrag import AnswerPrompt, create_nodes
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.nodes import Generate, generate
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.running import events, scripted_settings
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

BRIDGE = passage("The bridge was built by Aldous Wray.", {"title": "Bridge"}, "bridge")
QUESTION = "Who built the bridge?"
STATE = {"question": QUESTION}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_sentence_is_drafted_and_recorded_with_its_evidence(asynchronous):
    node = Generate(scripted_settings("It was Wray. He was born there."))
    state = {**STATE, "evidence": [BRIDGE]}
    update = asyncio.run(node.ainvoke(state)) if asynchronous else node.invoke(state)
    draft = Draft.from_state(update["draft"])
    # Two words of the next sentence show that the first one has ended.
    assert draft.text.startswith("It was Wray. He")
    (event,) = events(update, "draft")
    assert (event["pieces"], event["evidence"], event["carried"]) == (list(draft.pieces), ["bridge"], 0)
    assert "shortened_or_left_out" not in event
    assert update["replies"]["fruitless"] == 0


def test_carried_tokens_precede_the_new_ones():
    carried = Draft((" He",), (-0.1,))
    state = {**STATE, "text": "It was Wray.", "draft": carried.to_state()}
    update = Generate(scripted_settings(" was born in Hallin. Then it"))(state)
    assert Draft.from_state(update["draft"]).text.startswith(" He was born in Hallin.")
    assert events(update, "draft")[0]["carried"] == 1


def test_a_model_that_has_ended_its_answer_is_not_asked_again():
    over = Draft((" He",), (-0.1,), ended="end")
    settings = scripted_settings()  # any call would raise
    update = Generate(settings)({**STATE, "draft": over.to_state(), "replies": {"fruitless": 1}})
    assert Draft.from_state(update["draft"]) == over
    assert update["replies"]["fruitless"] == 1


def test_reasoning_and_empty_replies_are_recorded():
    update = Generate(scripted_settings("<think>Hm.</think>"))(STATE)
    assert [e["type"] for e in update["trace"]] == ["reasoning", "draft"]
    assert (update["replies"]["problem"], update["replies"]["fruitless"]) == ("only reasoning", 1)


def test_passages_that_do_not_fit_are_named():
    long = passage("word " * 500, {}, "long")
    update = Generate(scripted_settings("It was Wray.", context_tokens=60))({**STATE, "evidence": [long]})
    assert events(update, "draft")[0]["shortened_or_left_out"] == ["long"]


def test_an_answer_that_waits_for_another_node_is_not_continued():
    with pytest.raises(ConfigurationError, match="which the node `conclude` handles"):
        Generate(scripted_settings())({**STATE, "stage": "concluding"})


async def drafted(nodes):
    state = await nodes.begin.ainvoke({"question": QUESTION})
    return await nodes.generate.ainvoke({**state, "evidence": []})


@pytest.fixture
def threads(monkeypatch):
    """Record what the node hands to a thread of its own."""
    seen, original = [], generate.in_own_thread

    async def watched(function, *args, **kwargs):
        seen.append(function.__name__)
        return await original(function, *args, **kwargs)

    monkeypatch.setattr(generate, "in_own_thread", watched)
    return seen


def nodes_with(**options):
    model = ScriptedChatModel(replies=[said("It was built by Aldous Wray.")])
    prompt = AnswerPrompt(instructions="Answer.", answer_phrase=None)
    return create_nodes(model, WatchedRetriever(), preset="fixed_sentence", prompt=prompt, **options)


async def test_evidence_in_the_prompt_is_placed_without_another_thread(threads):
    update = await drafted(nodes_with())
    assert update["draft"]["pieces"]
    assert threads == []
