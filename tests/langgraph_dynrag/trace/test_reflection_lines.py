"""Judged continuations as lines of a trace."""

import pytest

from langgraph_dynrag import Trace, create_dynamic_rag
from langgraph_dynrag.trace.html import page
from langgraph_dynrag.trace.reflection_lines import continuation_lines, decision_lines, selection_lines
from tests.langgraph_dynrag.reflective import BRIDGE, FIRST, SECOND, reflective_chat, search
from tests.langgraph_dynrag.scripted import WatchedRetriever


@pytest.fixture
def chat():
    return reflective_chat()


@pytest.fixture
def retriever():
    return WatchedRetriever(give=search)


def test_the_trace_is_readable(chat, retriever):
    out = create_dynamic_rag(chat, retriever, preset="self_rag").invoke({"question": BRIDGE})
    trace = Trace.from_state(out)
    text = str(trace)
    for line in (
        "> 0.2 (yes 0.",
        "): search",
        f"with Bridge: '{FIRST}' = likelihood",
        "1 x relevance 1.00 + 1 x support 1.00",
        "0.5 x utility -1.00",
        f"'{FIRST} {SECOND}'",
        f"wrote: {SECOND}",
    ):
        assert line in text
    assert trace.counts["retrievals"] == 2
    assert trace.counts["drafts"] == 2
    assert trace.counts["forward_tokens"] == sum(e.get("forward_tokens", 0) for e in out["trace"]) > 0
    assert [d.evidence for d in trace.drafts] == [("built",), ("born",)]
    assert all(t.probability is not None and t.fate == "accepted" for d in trace.drafts for t in d.tokens)
    assert f"{FIRST} {SECOND}" in page(trace)
    assert "retrieval wanted" in page(trace)


def decided(**changes):
    made = {"hypothesis": 0, "retrieve": False, "keep": False, "reason": "wanted", "probabilities": None}
    return {**made, **changes}


def test_a_decision_says_how_a_hypothesis_continues():
    p = {"yes": 0.75, "no": 0.25}
    assert decision_lines({"decisions": [decided(retrieve=True, probabilities=p)]}) == [
        "  wanted (yes 0.75, no 0.25): search"
    ]
    assert decision_lines({"decisions": [decided(keep=True), decided(hypothesis=1)]}) == [
        "  hypothesis 1: wanted: keep the passage",
        "  hypothesis 2: wanted: no passage",
    ]


def test_a_continuation_shows_only_the_judgements_that_were_made():
    judged = {"relevance": {"relevant": 1.0}, "support": None, "utility": {"1": 1.0}}
    terms = {"likelihood": 0.5, "relevance": 1.0, "support": 0.0, "utility": -1.0, "total": 1.0}
    event = {
        "weights": {"relevance": 1.0, "support": 1.0, "utility": 0.5},
        "candidates": [
            {"passage": {"id": "1", "title": ""}, "text": " It was. ", "probabilities": judged, **terms},
            {"passage": None, "text": "", "probabilities": dict.fromkeys(judged), **terms},
        ],
    }
    assert continuation_lines(event) == [
        "    1.00 with 1: 'It was.' = likelihood 0.50 + 1 x relevance 1.00 + 0.5 x utility -1.00",
        "    1.00 without a passage: '' = likelihood 0.50",
    ]


def test_hypotheses_are_listed_if_there_are_several_and_votes_if_there_was_one():
    one, two = ({"text": f" {t} ", "score": s} for t, s in (("a", 2.0), ("b", 1.5)))
    assert selection_lines({"beam": [one], "over": True}) == []
    assert selection_lines({"beam": [one, two], "over": False}) == ["  kept 1: 2.00 'a'", "  kept 2: 1.50 'b'"]
    assert selection_lines({"beam": [one, two], "over": True})[0] == "  best 1: 2.00 'a'"
    vote = {"sums": [{"answer": "yes", "score": 2.5, "passages": ["1", None]}], "blank": ["2"]}
    assert selection_lines({"beam": [one], "over": True, "vote": vote}) == [
        "  votes: yes 2.50 (2), no answer of the set (1)"
    ]
