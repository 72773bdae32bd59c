"""The node that checks what a search found, and writes another query."""

import asyncio

import pytest

from langgraph_dynrag import Budgets, Reformulation
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.nodes import Reformulate, after_reformulate
from langgraph_dynrag.nodes.reformulate import find_problem
from tests.langgraph_dynrag.running import events, scripted_settings

QUESTION = "Who built it?"
LOW, HIGH, PLAIN = (
    passage(f"Text {score}.", {} if score is None else {"score": score}, str(score)) for score in (0.1, 0.9, None)
)


def state_of(*found, **changes):
    return {"question": QUESTION, "queries": ["mason"], "asked": ["mason"], "found": list(found), **changes}


@pytest.mark.parametrize(
    ("state", "least", "problem"),
    [
        (state_of(), None, "nothing found"),
        (state_of(LOW), None, None),
        (state_of(LOW), 0.5, "low scores"),
        (state_of(LOW, HIGH), 0.5, None),
        (state_of(LOW, PLAIN), 0.5, None),  # a missing score is no low score
        (state_of(HIGH, evidence=[HIGH, LOW]), None, "nothing new"),
        (state_of(HIGH, LOW, evidence=[HIGH]), None, None),
        (state_of(HIGH, asked=["Mason ", "mason"]), None, "same query"),
        (state_of(HIGH, queries=["mason", "bridge"], asked=["mason", "mason", "bridge"]), None, None),
    ],
)
def test_what_is_wrong_with_a_search(state, least, problem):
    settings = scripted_settings(reformulation=Reformulation(min_score=least))
    assert find_problem(state, settings) == problem


def reformulated(state, *replies, budgets=None, **reformulation):
    options = {} if budgets is None else {"budgets": budgets}
    settings = scripted_settings(*replies, reformulation=Reformulation(**reformulation), **options)
    return Reformulate(settings)(state)


def test_useful_passages_are_passed_on():
    update = reformulated(state_of(HIGH), max_rewrites=2)
    assert (update["queries"], update["found"]) == ([], [HIGH])
    assert events(update, "reformulation")[0]["outcome"] == "evidence"
    assert after_reformulate(update) == "resume"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_fruitless_query_is_rewritten_by_the_model(asynchronous):
    settings = scripted_settings("Query: builder", reformulation=Reformulation(max_rewrites=1))
    node, state = Reformulate(settings), state_of()
    update = asyncio.run(node.ainvoke(state)) if asynchronous else node.invoke(state)
    assert (update["queries"], update["rewrites"], update["found"]) == (["builder"], 1, [])
    (event,) = events(update, "reformulation")
    assert (event["problem"], event["query"], event["rewrite"]) == ("nothing found", "builder", 1)
    assert after_reformulate(update) == "retrieve"


def test_the_model_sees_what_was_written_and_searched():
    settings = scripted_settings("builder", reformulation=Reformulation(max_rewrites=1))
    draft = Draft((" It", " was", " Joan"), (-0.1,) * 3)
    Reformulate(settings)(state_of(text="It is old.", draft=draft.to_state(), judged=2))
    (call,) = settings.generator.chat.calls
    assert "Answer so far: It is old. It was\n" in call[-1].content
    assert 'found nothing useful: "mason"' in call[-1].content


@pytest.mark.parametrize(
    ("reply", "asked", "query"),
    [
        ("MASON", ["mason"], QUESTION),  # asked before
        ("word " * 33, ["mason"], QUESTION),  # too long for a query
        ("mason", ["mason", QUESTION], f"{QUESTION} It was"),
    ],
)
def test_a_reply_that_cannot_help_is_replaced(reply, asked, query):
    draft = Draft(("It", " was"), (-0.1,) * 2)
    state = state_of(asked=asked, draft=draft.to_state(), judged=2)
    assert reformulated(state, reply, max_rewrites=1)["queries"] == [query]


def test_a_search_that_has_no_other_query_is_settled():
    state = state_of(asked=["mason", QUESTION])  # nothing was written, so the third candidate is the question as well
    update = reformulated(state, "mason", max_rewrites=1)
    assert update["queries"] == []
    assert events(update, "reformulation")[0]["outcome"] == "nothing found"


@pytest.mark.parametrize(
    ("state", "options"),
    [
        (state_of(rewrites=2), {"max_rewrites": 2}),
        (state_of(retrievals=3), {"max_rewrites": 2, "budgets": Budgets(retrievals=3)}),
        (state_of(), {"max_rewrites": 0}),
    ],
)
def test_beyond_the_limits_no_query_is_rewritten(state, options):
    update = reformulated(state, **options)
    assert (update["queries"], update["found"]) == ([], [])


@pytest.mark.parametrize(("repeats", "outcome"), [("use", "evidence"), ("skip", "nothing found")])
def test_passages_that_are_in_the_prompt_are_used_or_skipped(repeats, outcome):
    update = reformulated(state_of(HIGH, evidence=[HIGH]), repeats=repeats)
    assert events(update, "reformulation")[0]["outcome"] == outcome
    assert update["found"] == ([HIGH] if repeats == "use" else [])
