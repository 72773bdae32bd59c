"""The query that the model wrote between search marks."""

import pytest

from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.queries import SearchTag
from langgraph_dynrag.search_tags.formats import SEARCH


def query(text, accepted="", tag_format=SEARCH):
    draft = Draft(tuple(text), (-0.1,) * len(text))
    (found,) = SearchTag(tag_format).plan(DraftView("Who?", accepted, draft, len(draft)), Verdict(True, "")).queries
    return found


@pytest.mark.parametrize(
    ("text", "accepted", "expected"),
    [
        ("It was <search> the mason </search>", "", "the mason"),
        ("<search>a</search> or <search>b</search>", "", "b"),
        ("<search>a</search> <search> </search>", "", "a"),  # an empty call has no query
        ("<search>a <search>b</search>", "", "b"),
        (" mason</search>", "It was <search>the", "the mason"),
        ("It is old. It was Wray.", "", "It was Wray."),  # no call: the last sentence
        ("It was <search>the", "", "It was <search>the"),  # never closed, so no call
        ("It was <search></search> Wray.", "", "It was Wray."),
        ("It was Wray.", "<search>old</search> ", "It was Wray."),  # answered before
    ],
)
def test_the_last_closed_call_is_the_query(text, accepted, expected):
    assert query(text, accepted) == expected


def test_the_default_format_is_that_of_flare_instruct():
    draft = Draft(("It was [Search(the mason (Wray))]",), (-0.1,))
    plan = SearchTag().plan(DraftView("Who?", "", draft, 1), Verdict(True, ""))
    assert (plan.queries, plan.prompts) == (("the mason (Wray)",), ())
