"""Queries that find nothing, or nothing new, are rewritten."""

import pytest

from langgraph_dynrag import Reformulation, Trace
from langgraph_dynrag.queries import LastSentence, MaskedSentence
from tests.langgraph_dynrag.presets.runs import FINAL, JOAN, QUESTION, UNSURE, WRITTEN, documents, run
from tests.langgraph_dynrag.scripted import WatchedRetriever, said


def test_a_query_that_finds_nothing_is_rewritten_and_recorded():
    out, model, retriever = run(
        [UNSURE, said("first other query"), said("second other query"), said(" stood. So the answer"), JOAN],
        retriever=WatchedRetriever(give=[]),
        initial_retrieval=False,
        reformulation=Reformulation(max_rewrites=2),
    )
    assert retriever.queries == ["It was built by .", "first other query", "second other query"]
    assert '"first other query"' in model.calls[2][0].content
    # There is no evidence to rewrite the sentence with, so it stays as it was.
    assert out["answer"] == "It was built by Joan. Then it stood. So the answer is Joan."
    events = [e for e in out["trace"] if e["type"] == "reformulation"]
    assert [e["problem"] for e in events] == ["nothing found"] * 3
    assert events[-1]["outcome"] == "nothing found"
    assert Trace.from_state(out).counts["rewrites"] == 2


def test_a_rewritten_query_that_was_already_searched_is_replaced_by_the_question():
    _, _, retriever = run(
        [UNSURE, said("It was built by ."), said(" So the answer is Joan.")],
        retriever=WatchedRetriever(give=[]),
        initial_retrieval=False,
        query=MaskedSentence(0.4),
        reformulation=Reformulation(max_rewrites=1),
    )
    assert retriever.queries == ["It was built by .", QUESTION]


def test_low_scores_count_as_nothing_found_but_missing_scores_do_not():
    def scored(score):
        def give(_query):
            found = documents(["bridge"])
            found[0].metadata = {"title": "Bridge"} | ({} if score is None else {"score": score})
            return found

        return WatchedRetriever(give=give)

    for score, outcome in ((0.1, "nothing found"), (0.9, "evidence"), (None, "evidence")):
        out, _, _ = run(
            [UNSURE, said(" So the answer is X.")] if outcome == "nothing found" else [UNSURE, WRITTEN, FINAL],
            retriever=scored(score),
            initial_retrieval=False,
            reformulation=Reformulation(min_score=0.5),
        )
        assert next(e for e in out["trace"] if e["type"] == "reformulation")["outcome"] == outcome


@pytest.mark.parametrize("repeats", ["use", "skip"])
def test_passages_already_in_the_prompt_are_used_or_skipped(repeats):
    same = WatchedRetriever(give=lambda _q: documents(["bridge", "wray"]))
    replies = [UNSURE, WRITTEN, FINAL] if repeats == "use" else [UNSURE, FINAL]
    out, _, _ = run(replies, retriever=same, evidence_life="replaced", reformulation=Reformulation(repeats=repeats))
    events = [e for e in out["trace"] if e["type"] == "reformulation"]
    assert [e["problem"] for e in events] == [None, "nothing new"]
    assert out["answer"].startswith("It was built by Wray." if repeats == "use" else "It was built by Joan.")
    assert Trace.from_state(out).counts["nothing_new"] == 1


def test_a_repeated_query_is_detected():
    out, _, retriever = run(
        [UNSURE, WRITTEN, UNSURE, said("another way to ask"), WRITTEN, FINAL],
        initial_retrieval=False,
        query=LastSentence(),
        reformulation=Reformulation(max_rewrites=1),
    )
    problems = [e["problem"] for e in out["trace"] if e["type"] == "reformulation"]
    assert problems[0] is None
    assert "same query" in problems
    assert "another way to ask" in retriever.queries
