"""The base class of query formulators, the checks of what one returns, and the comparison of queries."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Verdict
from langgraph_dynrag.queries import BaseFormulator, QueryFormulator
from langgraph_dynrag.queries.base import QueryPlan, asked_before, last_words, plan_of, queries_of
from langgraph_dynrag.triggers.base import check_needs
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import view

FIRED = Verdict(True, "test")


def words(text):
    return len(text.split())


@dataclass(frozen=True)
class Own(BaseFormulator):
    """Returns what it is given."""

    planned: object = None
    finished: object = ()

    def plan(self, view, verdict):
        return self.planned

    def finish(self, view, verdict, replies):
        return self.finished


def test_a_base_formulator_reads_no_signals_and_asks_no_model():
    class Simple(BaseFormulator):
        def plan(self, view, verdict):
            return QueryPlan(("q",))

    assert isinstance(Simple(), QueryFormulator)
    assert Simple().needs == frozenset()
    assert Simple().finish(view(), FIRED, ["a reply"]) == ()
    check_needs(Simple())


def test_a_plan_is_passed_on_and_queries_become_a_tuple():
    plan = QueryPlan(("a",))
    assert plan_of(Own(plan), view(), FIRED) is plan
    assert queries_of(Own(finished=["a", "b"]), view(), FIRED, []) == ("a", "b")


@pytest.mark.parametrize("planned", [None, "text", ("text",)])
def test_anything_but_a_plan_is_refused_with_the_line_to_write(planned):
    with pytest.raises(ConfigurationError, match=r"plan\(\) returned .*QueryPlan\(queries=\('text',\)\)"):
        plan_of(Own(planned), view(), FIRED)


@pytest.mark.parametrize("finished", [None, "text", {"text"}, [1]])
def test_anything_but_a_sequence_of_strings_is_refused(finished):
    with pytest.raises(ConfigurationError, match=r"finish\(\) returned .*a tuple of strings is needed"):
        queries_of(Own(finished=finished), view(), FIRED, [])


def test_needs_of_the_wrong_type_are_refused():
    class Broken(BaseFormulator):
        needs = "logprob"

    with pytest.raises(ConfigurationError, match="the needs of .* are 'logprob'"):
        check_needs(Broken())


@pytest.mark.parametrize(
    ("query", "earlier", "repeated"),
    [
        ("who built it", ["Who  built\tit"], True),
        ("ＷＨＯ built it", ["who built it"], True),
        ("Straße", ["STRASSE"], True),
        ("who built it?", ["who built it"], False),
        ("who", [], False),
        ("", [" "], True),
    ],
)
def test_queries_are_compared_without_case_white_space_and_forms_of_letters(query, earlier, repeated):
    assert asked_before(query, earlier) is repeated


@given(st.text("ab \n", max_size=40), st.integers(1, 6))
def test_the_last_words_that_fit_are_kept_in_order(query, tokens):
    assert last_words(query, tokens, words).split() == query.split()[-tokens:]


def test_one_word_is_kept_even_if_it_has_more_tokens_than_allowed():
    assert last_words("an extraordinarily", 3, len) == "extraordinarily"
    assert last_words("a b c", 3, len) == "b c"
