"""Queries for the unsure parts of an answer: those of the plans, and those that the model writes."""

from langgraph_dynrag.agents.judged_answer import Need
from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.query_writer import Asking
from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from tests.langgraph_dynrag.scripted import WatchedRetriever

NEED = Need(DraftView("Who built the old bridge?", "", Draft(), 0), Verdict(True, "unsure"))


class Shouting(BaseFormulator):
    """Turns each reply into a query in capitals."""

    def plan(self, view, verdict):
        raise AssertionError("planned before")

    def finish(self, view, verdict, replies):
        return tuple(reply.upper() for reply in replies)


def asking(*plans):
    return Asking(Shouting(), tuple((NEED, plan) for plan in plans))


def queries(asked, **options):
    return asked.queries(WatchOptions(retriever=WatchedRetriever(), **options), lambda text: len(text.split()))


def test_prompts_are_answered_one_after_the_other():
    asked = asking(QueryPlan(prompts=("1?", "2?")), QueryPlan(queries=("b",)), QueryPlan(prompts=("3?",)))
    assert asked.prompts == ("1?", "2?", "3?")
    later = asked.answered("x").answered("y")
    assert (later.prompts, asked.prompts) == (("3?",), ("1?", "2?", "3?"))
    assert later.answered("z").prompts == ()
    assert queries(later.answered("z")) == ["X", "Y", "b"]  # three at most


def test_queries_of_a_plan_precede_those_from_its_replies_and_repeat_none():
    asked = asking(QueryPlan(queries=("a", "X"), prompts=("1?",)), QueryPlan(queries=("a", "c")))
    assert queries(asked.answered("x"), max_queries=9) == ["a", "X", "c"]


def test_overlong_queries_keep_their_last_words():
    assert queries(asking(QueryPlan(queries=("one two  three four",))), query_tokens=2) == ["three four"]


def test_the_question_is_the_query_if_there_is_no_other():
    assert queries(asking(QueryPlan(queries=("", " ")))) == ["Who built the old bridge?"]
    assert queries(asking(QueryPlan()), query_tokens=2) == ["old bridge?"]
