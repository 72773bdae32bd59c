"""Evidence that only stands in the prompt is placed without leaving the event loop's thread."""

import pytest

from langgraph_dynrag import AnswerPrompt, create_nodes
from langgraph_dynrag.nodes import generate
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the bridge?"


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
