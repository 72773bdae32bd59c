"""Searches in the text: which spans are not part of the answer, and what they cannot be combined with."""

import pytest

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.search_tags.exchange import Exchange, NoExchange
from langgraph_dynrag.search_tags.formats import SEARCH
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import WatchedRetriever


def test_results_cannot_go_into_the_parameters(tiny_lm):
    class Injector:
        injection = "parametric"

        def prepare(self, passages, question=""):
            return {}

        def place(self, passages, question=""):
            raise AssertionError

    from langgraph_dynrag.assembly import make_settings

    with pytest.raises(ConfigurationError, match="injection='context'"):
        make_settings(
            LocalChatModel.from_causal_lm(tiny_lm),
            WatchedRetriever(),
            preset="search_tag",
            injector=Injector(),
        )


def test_a_method_with_evidence_in_the_prompt_knows_no_searches():
    none = NoExchange()
    assert (none.within_text, none.closing_mark) == (False, "")
    assert none.marked("<search>a</search>") == []
    assert none.open_call("<search>a") is None


@pytest.mark.parametrize("since", [0, 5])
def test_closed_calls_and_stray_marks_are_no_part_of_the_answer(since):
    text = "</search> It was <search>a</search> <search>b"
    exchange = Exchange(SEARCH)
    spans = [text[s.start : s.end] for s in exchange.marked(text, since)]
    assert spans == (["</search>", "<search>a</search>"] if since == 0 else ["<search>a</search>"])
    assert exchange.open_call(text, since) == text.rindex("<search>")
    assert exchange.open_call(text, len(text)) is None
    assert (exchange.within_text, exchange.closing_mark) == (True, "</search>")
