"""The node that judges a draft: accepted, ended, or in need of a search."""

import asyncio

import pytest

from langgraph_dynrag import Budgets
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.nodes import Monitor, after_monitor
from langgraph_dynrag.nodes.monitor import draft_view, exhausted, judge, shortened
from langgraph_dynrag.queries import Question, Rewrite
from langgraph_dynrag.triggers import EverySentence, Never
from tests.langgraph_dynrag.recorded import view
from tests.langgraph_dynrag.running import events, scripted_settings

QUESTION = "Who built it?"


def state_of(said, probabilities=None, *, ended="unit", **changes):
    draft = view(said, probabilities).draft
    return {"question": QUESTION, "draft": {**draft.to_state(), "ended": ended}, **changes}


def monitored(text, probabilities=None, *replies, state=None, **options):
    return Monitor(scripted_settings(*replies, **options))(state_of(text, probabilities, **(state or {})))


def test_a_certain_sentence_is_accepted_and_the_rest_is_carried_on():
    update = monitored("It was Wray. He was")
    assert (update["text"], update["queries"]) == ("It was Wray.", [])
    assert "stage" not in update
    assert Draft.from_state(update["draft"]).text == " He was"
    assert [e["type"] for e in update["trace"]] == ["verdict", "accepted"]
    assert after_monitor({"stage": "drafting", **update}) == "generate"


def test_an_uncertain_sentence_is_searched_for_and_not_accepted():
    update = monitored("It was Joan. He was", {"Joan": 0.1})
    assert update["queries"] == ["It was ."]
    assert (update["judged"], update["verdict"]["position"], update["rewrites"]) == (4, 2, 0)
    assert "text" not in update
    assert [e["type"] for e in update["trace"]] == ["verdict", "query"]
    assert after_monitor({"stage": "drafting", **update}) == "retrieve"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_model_that_writes_the_query_is_asked(asynchronous):
    monitor = Monitor(scripted_settings("Query: mason", query=Rewrite()))
    state = state_of("It was Joan. He was", {"Joan": 0.1})
    update = asyncio.run(monitor.ainvoke(state)) if asynchronous else monitor.invoke(state)
    assert update["queries"] == ["mason"]


def test_without_a_usable_query_the_question_is_searched():
    update = monitored("It was Joan. He was", {"Joan": 0.1}, " ", query=Rewrite())
    assert update["queries"] == [QUESTION]


def test_long_queries_keep_their_end():
    settings = scripted_settings(query_tokens=4, query=Question())
    assert shortened("one two three four five six", settings) == "five six"  # a token per three characters, and one


def test_the_last_sentence_of_a_complete_answer_needs_no_search():
    update = monitored("So the answer is Wray.", state={"ended": "end", "run_id": "1"}, trigger=EverySentence())
    assert (update["stage"], update["short_answer"]) == ("done", "Wray")
    assert after_monitor(update) == "__end__"


@pytest.mark.parametrize(
    ("state", "budgets", "hit"),
    [
        ({}, Budgets(), None),
        ({"retrievals": 2}, Budgets(retrievals=2), "retrievals"),
        ({"identical": 2}, Budgets(identical_retrievals=1), "identical_retrievals"),
        ({"identical": 1}, Budgets(identical_retrievals=1), None),
        ({"seconds": {"generate": 3.0, "retrieve": 2.0}}, Budgets(seconds=5), "seconds"),
    ],
)
def test_which_budget_forbids_another_search(state, budgets, hit):
    assert exhausted(state, scripted_settings(budgets=budgets)) == hit


def test_beyond_its_budget_an_uncertain_sentence_is_accepted_and_that_is_recorded_once():
    options = {"budgets": Budgets(retrievals=1)}
    update = monitored("It was Joan. He was", {"Joan": 0.1}, state={"retrievals": 1}, **options)
    assert (update["text"], update["queries"], update["budget_hit"]) == ("It was Joan.", [], "retrievals")
    assert [e["which"] for e in events(update, "budget")] == ["retrievals"]
    again = monitored(
        "It was Joan. He was", {"Joan": 0.1}, state={"retrievals": 1, "budget_hit": "retrievals"}, **options
    )
    assert not events(again, "budget")


@pytest.mark.parametrize("recheck", [False, True])
def test_a_regenerated_sentence_is_judged_again_only_if_asked_for(recheck):
    state = {"regenerating": True}
    update = monitored("It was Joan. He was", {"Joan": 0.1}, state=state, recheck=recheck)
    assert bool(update["queries"]) is recheck
    if not recheck:
        assert (update["text"], update["regenerating"]) == ("It was Joan.", False)
        assert events(update, "verdict")[0]["reason"] == "written with the passages found"


def test_passages_for_one_sentence_leave_with_it_and_so_do_tokens_beyond_it():
    found = [{"id": "bridge", "text": "A bridge.", "title": "", "source": "", "score": None, "metadata": {}}]
    for life, evidence, carried in (("sentence", [], None), ("accumulated", found, " He was")):
        update = monitored(
            "It was Wray. He was", state={"evidence": found, "stage": "drafting"}, evidence_life=life, k=1
        )
        assert update.get("evidence", found) == evidence
        assert (None if update["draft"] is None else Draft.from_state(update["draft"]).text) == carried


def test_a_reply_without_text_is_not_judged():
    state = {"question": QUESTION, "draft": None, "replies": {"problem": "only reasoning", "fruitless": 1}}
    view_, verdict, update = judge(state, scripted_settings())
    assert verdict is None
    assert view_.judged == 0
    assert [e["outcome"] for e in update["trace"]] == ["asked again"]


def test_a_trigger_sees_the_models_own_words_and_its_entropies():
    state = state_of("It was", text="Old. <r>x</r>", hidden=[[5, 13]], entropies=[0.5, 0.7])
    seen = draft_view(state, scripted_settings(), Draft.from_state(state["draft"]), 2)
    assert (seen.question, seen.accepted, seen.history, seen.judged) == (QUESTION, "Old. ", (0.5, 0.7), 2)
    assert seen.attention is None
    assert seen.sample_ends is None


def test_the_short_answer_is_accepted_whatever_its_probabilities():
    state = {"stage": "closing", "text": "It is old. So the answer is", "run_id": "1"}
    update = monitored(" Joan.", {"Joan": 0.01}, state=state)
    assert (update["stage"], update["short_answer"]) == ("done", "Joan")


@pytest.mark.parametrize(
    ("state", "goal"),
    [
        ({"stage": "done", "queries": ["q"]}, "__end__"),
        ({"stage": "concluding", "queries": []}, "conclude"),
        ({"stage": "drafting", "queries": ["q"]}, "retrieve"),
        ({"stage": "closing", "queries": []}, "generate"),
    ],
)
def test_where_a_judged_draft_leads(state, goal):
    assert after_monitor(state) == goal


def test_a_draft_that_ends_the_answer_is_accepted_as_a_whole():
    update = monitored("It was Wray", state={"ended": "end"}, trigger=Never())
    assert (update["stage"], update["text"]) == ("closing", "It was Wray\nSo the answer is")


def test_the_texts_of_passages_are_put_together_only_if_something_reads_them():
    given = [passage("It was Wray.", {"title": "Bridge"}, QUESTION)]
    seen = draft_view(state_of("It was Joan.", evidence=given), scripted_settings(), Draft.from_state(None), 0)
    assert "evidence" not in vars(seen)
    assert seen.evidence == ("Bridge. It was Wray.",)
