"""What a run does when one of its budgets is used up."""

import json
from types import SimpleNamespace

import pytest

from langgraph_dynrag import Budgets, RetrievalPolicy
from langgraph_dynrag.nodes.retrieve import search
from langgraph_dynrag.triggers import Never
from tests.langgraph_dynrag.presets.runs import FINAL, UNSURE, WRITTEN, documents, run
from tests.langgraph_dynrag.scripted import WatchedRetriever, said


def test_the_retrieval_budget_ends_retrieval_but_not_the_answer():
    out, _, retriever = run(
        [UNSURE, WRITTEN, said(" Its mason was Joan. So the answer", Joan=0.1), said(" answer is Aldous Wray.")],
        initial_retrieval=False,
        budgets=Budgets(retrievals=1),
    )
    assert len(retriever.queries) == 1
    assert out["short_answer"] == "Aldous Wray"
    assert [e["which"] for e in out["trace"] if e["type"] == "budget"] == ["retrievals"]


def test_a_retrieval_budget_of_zero_allows_no_search():
    out, _, retriever = run([UNSURE, FINAL], budgets=Budgets(retrievals=0))
    assert retriever.queries == []
    assert out["short_answer"] == "Aldous Wray"


def test_the_token_budget_forces_the_short_answer():
    out, model, _ = run(
        [said("It was built by the mason of the old town wall"), said(" Aldous Wray.")],
        initial_retrieval=False,
        trigger=Never(),
        budgets=Budgets(tokens=10),
    )
    assert out["answer"] == "It was built by the mason of the old town\nSo the answer is Aldous Wray."
    assert out["short_answer"] == "Aldous Wray"
    assert model.options[0]["max_tokens"] == 10
    assert [e["type"] for e in out["trace"] if e["type"] in ("budget", "closing")] == ["budget", "closing"]


def test_the_time_budget_forces_the_short_answer():
    out, _, _ = run(
        [said(" Aldous Wray.")],
        retriever=WatchedRetriever(delay=0.3),
        budgets=Budgets(seconds=0.2),
    )
    assert out["short_answer"] == "Aldous Wray"
    assert "seconds" in [e.get("which") for e in out["trace"]]


def test_the_budget_of_identical_retrievals_ends_retrieval():
    same = WatchedRetriever(give=lambda _q: documents(["bridge", "wray"]))
    out, _, retriever = run(
        [UNSURE, WRITTEN, UNSURE, FINAL],
        retriever=same,
        evidence_life="replaced",
        budgets=Budgets(identical_retrievals=0),
    )
    assert len(retriever.queries) == 2
    assert [e["which"] for e in out["trace"] if e["type"] == "budget"] == ["identical_retrievals"]
    assert out["short_answer"] == "Aldous Wray"


@pytest.mark.parametrize("limit", [0, 1, 2])
@pytest.mark.parametrize("life", ["sentence", "replaced", "accumulated"])
def test_identical_searches_are_counted_after_their_passages_have_left_the_prompt(life, limit):
    """The question is searched first, then the same unsure sentence again and again, as happens with FLARE."""
    same = WatchedRetriever(give=lambda _q: documents(["bridge"]))
    replies = [UNSURE, UNSURE, UNSURE, UNSURE, UNSURE, FINAL, FINAL, FINAL, FINAL, FINAL]
    out, _, retriever = run(
        replies, retriever=same, evidence_life=life, recheck=True, budgets=Budgets(identical_retrievals=limit)
    )
    identical = [e["identical"] for e in out["trace"] if e["type"] == "retrieval"]
    assert identical.count(True) == limit + 1
    assert identical[-1]
    assert len(retriever.queries) == len(identical) <= limit + 3
    assert [e["which"] for e in out["trace"] if e["type"] == "budget"] == ["identical_retrievals"]
    json.dumps([out["trace"], out["answer"]])


@pytest.mark.parametrize(
    ("query", "identical"),
    [("who built it?", True), ("  WHO\tbuilt  it? ", True), ("\uff37ho built it?", True), ("Who sold it?", False)],
)
def test_searches_are_identical_if_query_or_passages_repeat(query, identical):
    settings = SimpleNamespace(retriever=WatchedRetriever(give=lambda _q: []), k=3, retrieval=RetrievalPolicy())
    first = search({"queries": ["Who built it?"]}, settings, {})
    second = search({"queries": [query], **{n: first[n] for n in ("asked", "seen", "identical")}}, settings, {})
    assert (first["identical"], second["identical"]) == (0, int(identical))
    other = SimpleNamespace(
        retriever=WatchedRetriever(give=lambda _q: documents(["bridge"])), k=3, retrieval=RetrievalPolicy()
    )
    known = search({"queries": [query], "seen": ["bridge"], "asked": [], "identical": 1}, other, {})
    assert known["identical"] == 2
    failing = SimpleNamespace(retriever=WatchedRetriever(give=OSError("down")), k=3, retrieval=RetrievalPolicy())
    assert search({"queries": ["Who built it?"], "asked": ["Who built it?"]}, failing, {})["identical"] == 0
