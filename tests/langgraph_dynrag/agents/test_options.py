"""The options of the middleware."""

import pytest

from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from langgraph_dynrag.queries import QFS
from langgraph_dynrag.retrieval import BM25Retriever
from langgraph_dynrag.triggers import EverySentence, LearnedTrigger, Never
from langgraph_dynrag.triggers.learned_model import LearnedModel
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rounds": 0}, "max_rounds is 0"),
        ({"k": 0}, "k is 0"),
        ({"context_tokens": 3}, "context_tokens is 3"),
        ({"on_missing_signals": "ignore"}, "known: 'continue', 'raise'"),
        ({"drafts": "shown"}, "known: 'hidden', 'streamed'"),
        ({"with_passages": "{question}"}, "with_passages lacks {passages}"),
        ({"treshold": 1}, "no argument .treshold.*Known: .*trigger"),
        ({"trigger": 0.5}, "a Trigger is needed"),
        ({"trigger": EverySentence(), "query": QFS()}, "QFS reads the attention"),
        ({"retriever": "index"}, "retriever is a str; a LangChain BaseRetriever is needed"),
    ],
)
def test_options_are_checked_when_the_middleware_is_created(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DynamicRetrievalMiddleware(**{"retriever": WatchedRetriever(), **options})


def test_a_trigger_that_needs_a_signal_no_message_carries_is_refused_at_creation():
    class Sampling(Never):
        needs = frozenset({"samples"})

    with pytest.raises(SignalUnavailableError, match="samples, which no message carries"):
        DynamicRetrievalMiddleware(WatchedRetriever(), trigger=Sampling())


def test_a_learned_trigger_needs_an_index_that_it_can_ask_and_gives_nothing_up():
    rare = LearnedModel("logistic", ("rarest_new_name",), (0.0,), (1.0,), 0.0, weights=(1.0,))
    with pytest.raises(SignalUnavailableError, match="rarest_new_name.*WatchedRetriever does not"):
        DynamicRetrievalMiddleware(WatchedRetriever(), trigger=LearnedTrigger(rare))
    DynamicRetrievalMiddleware(BM25Retriever.from_documents(DOCUMENTS), trigger=LearnedTrigger(rare))
    plain = LearnedModel("logistic", ("names",), (0.0,), (1.0,), 0.0, weights=(1.0,))
    with pytest.raises(ConfigurationError, match=r"abstain is 0.9, but an agent's answer is not given up"):
        DynamicRetrievalMiddleware(WatchedRetriever(), trigger=LearnedTrigger(plain, abstain=0.9))
