"""What a reader cannot be combined with."""

import pytest

from langgraph_dynrag import LocalChatModel, Reader, SegmentSelection, create_nodes
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever


def test_an_unknown_style_is_refused():
    with pytest.raises(ConfigurationError, match="style is 'short'; known: 'cot', 'direct'"):
        Reader("short")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preset": "search_r1"}, r"the results of WrittenTag\(.*\) stand in the text"),
        ({"preset": "flare"}, 'with evidence_life="sentence" they leave the prompt'),
        ({"preset": "ircot", "evidence_life": "sentence", "max_passages": None}, "they leave the prompt"),
    ],
)
def test_a_method_without_passages_to_read_is_refused(options, reason):
    with pytest.raises(ConfigurationError, match=rf"final_answer=Reader\(style='cot'\) reads .*{reason}"):
        create_nodes(ScriptedChatModel(replies=[]), WatchedRetriever(), final_answer=Reader(), **options)


def test_a_method_that_selects_continuations_is_refused(tiny_lm):
    chat = LocalChatModel.from_causal_lm(tiny_lm)
    with pytest.raises(ConfigurationError, match=r"with selection=\.\.\. each continuation has its own"):
        create_nodes(chat, WatchedRetriever(), preset="self_rag", selection=SegmentSelection(), final_answer=Reader())
