"""The trigger on a search call that the model writes."""

import pytest

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.assembly import make_settings
from langgraph_dynrag.drafts.draft import Draft, DraftView, Unit
from langgraph_dynrag.search_tags.formats import FLARE_INSTRUCT, SEARCH_O1
from langgraph_dynrag.triggers import WrittenTag
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import WatchedRetriever


def judged(text, accepted="", tag_format=None):
    trigger = WrittenTag() if tag_format is None else WrittenTag(tag_format)
    draft = Draft(tuple(text), (-0.1,) * len(text))
    return trigger.judge(DraftView("Who?", accepted, draft, len(draft)))


def test_a_closed_call_fires_and_nothing_is_discarded():
    verdict = judged("It was <search>the mason</search>")
    assert verdict.retrieve
    assert verdict.position is None
    assert verdict.reason == "wrote <search>the mason</search>"


@pytest.mark.parametrize(
    ("text", "accepted", "retrieve", "reason"),
    [
        ("It was Wray.", "", False, "no <search> was written"),
        ("It was <search>the", "", False, "no <search> was written"),
        ("It was Wray.</search>", "", False, "</search> closes nothing"),
        (" mason</search>", "It was <search>the", True, "wrote <search>the mason</search>"),
        (" Then", "It was <search>the mason</search>", False, "no <search> was written"),
        ("<search>a</search> <search>b</search>", "", True, "wrote <search>b</search>"),
        ("<search>a <search>b</search>", "", True, "wrote <search>b</search>, nested; the innermost counts"),
    ],
)
def test_only_a_call_closed_in_the_judged_tokens_fires(text, accepted, retrieve, reason):
    verdict = judged(text, accepted)
    assert (verdict.retrieve, verdict.reason) == (retrieve, reason)


def test_a_draft_ends_at_the_mark_that_closes_a_call():
    assert WrittenTag().unit == Unit("until", until="</search>")
    assert WrittenTag(SEARCH_O1).unit == Unit("until", until=SEARCH_O1.call[1])
    assert judged("It was [Search(the mason)]", tag_format=FLARE_INSTRUCT).retrieve


def test_anything_but_a_format_is_refused():
    with pytest.raises(ConfigurationError, match="tag_format is '<search>'"):
        WrittenTag("<search>")


def test_results_cannot_go_into_the_parameters(tiny_lm):
    class Injector:
        injection = "parametric"

        def prepare(self, passages, question=""):
            return {}

        def place(self, passages, question=""):
            raise AssertionError

    chat = LocalChatModel.from_causal_lm(tiny_lm)
    with pytest.raises(ConfigurationError, match="injection='context'"):
        make_settings(chat, WatchedRetriever(), preset="search_tag", injector=Injector())
