"""Asking the model how much retrieval a question needs: the prompt, and what its replies mean."""

import pytest

from langgraph_dynrag import AskComplexity
from rag_backbone.errors import ConfigurationError


def test_the_prompt_holds_the_question_and_the_labels_of_the_paper():
    prompt = AskComplexity().prompt("Who built {question} in Brannoch?")
    assert "Question: Who built {question} in Brannoch?" in prompt
    assert [line[:2] for line in prompt.splitlines() if line[1:2] == ":"] == ["A:", "B:", "C:"]


@pytest.mark.parametrize(
    ("reply", "route"),
    [
        ("A", "none"),
        (" B.", "single"),
        ("**C**", "multi"),
        ("C: several facts", "multi"),
        ("B) one fact", "single"),
        ("The answer is B.", "single"),
        ("Answer: C\nBecause", "multi"),
        ("label B", "single"),
        ('"Multi"', "multi"),
        ("none.", "none"),
    ],
)
def test_a_reply_begins_with_a_class(reply, route):
    assert AskComplexity().read(reply) == (route, None)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "the reply is empty"),
        ("A passage is needed.", "the reply names no class"),
        ("Brannoch", "the reply names no class"),
        ("I would look it up: B", "the reply names no class"),
        ("b", "the reply names no class"),
        ("D", "the reply names no class"),
        ("A's", "the reply names no class"),
        ("A: A, B or C.", "the reply repeats the choices"),
        ("A, B, or C: A", "the reply repeats the choices"),
    ],
)
def test_a_reply_without_a_class_is_none(reply, problem):
    assert AskComplexity().read(reply) == (None, problem)


def test_a_reply_of_no_tokens_is_refused():
    with pytest.raises(ConfigurationError, match="tokens is 0; at least 1"):
        AskComplexity(0)
