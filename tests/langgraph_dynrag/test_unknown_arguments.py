"""Unknown arguments are refused with the nearest known name, and LangChain's names are accepted."""

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from langgraph_dynrag.retrieval import BM25Retriever, DenseRetriever, HybridRetriever
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import WatchedRetriever

DOCUMENTS = [Document("The bridge was built by Aldous Wray.")]


@pytest.fixture
def chat(tiny_lm):
    return LocalChatModel.from_causal_lm(tiny_lm, max_tokens=4)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("max_token", "max_tokens"),
        ("tempperature", "temperature"),
        ("topp", "top_p"),
        ("modle", "model"),
        ("stop_sequence", "stop_sequences"),
        ("dtypes", "dtype"),
    ],
)
def test_a_misspelt_chat_model_option_is_refused_with_the_nearest_name(wrong, near):
    with pytest.raises(ConfigurationError, match=f"LocalChatModel has no argument '{wrong}' .did you mean '{near}'"):
        LocalChatModel(**{wrong: 3})


def test_an_option_without_a_near_match_is_refused(tiny_lm):
    with pytest.raises(ConfigurationError, match="no argument 'base_url'"):
        LocalChatModel.from_causal_lm(tiny_lm, base_url="http://localhost")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("way", ["invoke", "stream", "batch"])
async def test_a_misspelt_call_option_is_refused(chat, asynchronous, way):
    with pytest.raises(ConfigurationError, match="no argument 'tempperature' .did you mean 'temperature'"):
        if way == "stream":
            if asynchronous:
                [chunk async for chunk in chat.astream("Hello", tempperature=2)]
            else:
                list(chat.stream("Hello", tempperature=2))
        elif way == "batch":
            await chat.abatch(["Hello"], tempperature=2) if asynchronous else chat.batch(["Hello"], tempperature=2)
        else:
            await chat.ainvoke("Hello", tempperature=2) if asynchronous else chat.invoke("Hello", tempperature=2)


def test_a_misspelt_option_is_refused_when_it_is_bound(chat):
    with pytest.raises(ConfigurationError, match="did you mean 'max_tokens'"):
        chat.bind(max_token=3)
    with pytest.raises(ConfigurationError, match="did you mean 'temperature'"):
        chat.bind_tools([], temperatur=1)


@pytest.mark.parametrize(("name", "value"), [("temperature", "hot"), ("max_tokens", [3]), ("stop", 5), ("seed", "x")])
def test_a_value_of_the_wrong_type_is_refused_with_an_explanation(chat, name, value):
    with pytest.raises(ConfigurationError, match=f"{name} is "):
        chat.invoke("Hello", **{name: value})


def test_langchain_option_names_are_accepted(tiny_lm, chat):
    class Heard(BaseCallbackHandler):
        tokens = 0

        def on_llm_new_token(self, *args, **kwargs):
            self.tokens += 1

    heard = Heard()
    made = LocalChatModel(
        model_name="embedded",
        max_completion_tokens=7,
        stop_sequences=["x"],
        temperature=0,
        timeout=60,
        max_retries=2,
        api_key="none",
        callbacks=[heard],
        tags=["t"],
        metadata={"a": 1},
        cache=False,
        name="writer",
        verbose=False,
        disable_streaming=False,
        rate_limiter=None,
    )
    assert (made.model, made.max_tokens, made.stop) == ("embedded", 7, ["x"])
    reply = chat.invoke(
        "Hello",
        {"callbacks": [heard], "tags": ["t"], "metadata": {"a": 1}, "run_name": "r"},
        stop=None,
        stream=True,
        max_completion_tokens=2,
        model_name=tiny_lm.name,
        stream_usage=True,
        temperature=None,
    )
    assert reply.usage_metadata["output_tokens"] == 2
    assert heard.tokens >= 2
    streaming = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=2, streaming=True)
    before = heard.tokens
    streaming.invoke("Hello", {"callbacks": [heard]})
    assert heard.tokens > before


def test_two_aliases_of_one_argument_are_refused():
    with pytest.raises(ConfigurationError, match="max_new_tokens and max_tokens name the same argument"):
        LocalChatModel(max_tokens=3, max_new_tokens=4)


def test_a_reply_that_exceeds_the_timeout_raises(tiny_lm):
    chat = LocalChatModel.from_causal_lm(tiny_lm, timeout=1e-6)
    with pytest.raises(TimeoutError, match="timeout=1e-06 seconds and was stopped after 1 tokens"):
        chat.invoke("Hello")
    assert chat.invoke("Hello", timeout=60, max_tokens=2).usage_metadata["output_tokens"] == 2


@pytest.mark.parametrize(
    "made",
    [
        lambda **wrong: BM25Retriever.from_documents(DOCUMENTS, **wrong),
        lambda **wrong: DenseRetriever(store=None, **wrong),
        lambda **wrong: HybridRetriever(retrievers=[WatchedRetriever()], **wrong),
    ],
)
def test_a_misspelt_retriever_option_is_refused(made):
    with pytest.raises(ConfigurationError, match="Retriever has no argument 'kk' .did you mean 'k'"):
        made(kk=3)
    with pytest.raises(ConfigurationError, match="no argument 'search_kwargs'"):
        made(search_kwargs={"k": 3})
    assert made(k=2, tags=["t"], metadata={"a": 1}).k == 2


def test_a_misspelt_middleware_option_is_refused():
    with pytest.raises(ConfigurationError, match="no argument 'max_round' .did you mean 'max_rounds'"):
        DynamicRetrievalMiddleware(WatchedRetriever(), max_round=3)
