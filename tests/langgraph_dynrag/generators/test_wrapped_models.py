"""Chat models in LangChain's wrappers are accepted, and the options of a wrapper reach every call."""

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from langgraph_dynrag import Budgets, DynamicRetrievalMiddleware, LocalChatModel, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.generators.local import LocalGenerator, make_generator
from langgraph_dynrag.generators.openai import OpenAIGenerator
from langgraph_dynrag.triggers import TokenProbability
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.generators.served import QUESTION, QUICK, TEXT, chat
from tests.langgraph_dynrag.generators.wrapped import ask, graph
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said
from tests.openai_server import serving
from tests.tiny import tiny_llama, tiny_tokenizer

WRAPPERS = {
    "bind": lambda m: m.bind(temperature=0.3),
    "with_config": lambda m: m.with_config(tags=["mine"]),
    "with_retry": lambda m: m.with_retry(stop_after_attempt=3),
    "with_fallbacks": lambda m: m.with_fallbacks([m]),
    "configurable_fields": lambda m: m.configurable_fields(temperature=ConfigurableField(id="heat")),
    "all of them": lambda m: m.bind(temperature=0.3).with_config(tags=["mine"]).with_retry().with_fallbacks([m]),
    "in another order": lambda m: m.with_retry().with_fallbacks([m]).with_config(tags=["mine"]).bind(temperature=0.3),
}


# ------------------------------------------------------------------------------------------ all wrappers are accepted


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_a_wrapped_server_model_answers_like_the_bare_model(wrapper, asynchronous):
    with serving(TEXT) as server:
        built = graph(WRAPPERS[wrapper](chat(server)))
        result = await ask(built, asynchronous)
        assert result["answer"] == TEXT
        assert any(body.get("continue_final_message") for body in server.asked())  # recognised as a server model


@pytest.mark.parametrize("wrapper", [w for w in WRAPPERS if w != "configurable_fields"])
def test_any_wrapped_chat_model_answers(wrapper):
    model = ScriptedChatModel(replies=[said(TEXT)])
    assert graph(WRAPPERS[wrapper](model), preset="no_retrieval").invoke(QUESTION)["answer"] == TEXT


@pytest.mark.parametrize("preset", ["flare", "dragin", "self_rag"])
@pytest.mark.parametrize("wrapper", ["bind", "with_config", "configurable_fields"])
def test_a_wrapped_local_model_gives_all_its_signals(local, wrapper, preset):
    model = WRAPPERS[wrapper](local)
    built = create_dynamic_rag(model, WatchedRetriever(), preset=preset, budgets=Budgets(tokens=12))
    assert built.invoke(QUESTION)["trace"]


def test_a_model_configured_at_each_call_answers():
    with serving(TEXT) as server:
        made = {"model_provider": "openai", "base_url": server.url, "api_key": "none", "max_retries": 0}
        plain = init_chat_model("base", **made)
        assert graph(plain, server=QUICK).invoke(QUESTION)["answer"] == TEXT
        for model in (
            init_chat_model("base", configurable_fields=("temperature",), **made),
            init_chat_model("base", configurable_fields="any", config_prefix="my", **made),
            init_chat_model("base", configurable_fields=("temperature",), **made).with_config(tags=["mine"]),
        ):
            assert graph(model).invoke(QUESTION)["answer"] == TEXT


# -------------------------------------------------------------------------------------- wrapper options reach all calls


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_bound_options_reach_every_call(asynchronous):
    with serving(TEXT, Hallin=0.3) as server:
        model = chat(server).bind(temperature=0.9, extra_body={"top_k": 7}, user="me")
        built = graph(model, server=QUICK)
        await ask(built, asynchronous)
        bodies = [body for path, body in server.requests if path == "/chat/completions"]
        assert len(bodies) > 2
        assert {(body["temperature"], body["top_k"], body["user"]) for body in bodies} == {(0.9, 7, "me")}
        assert any("continue_final_message" in body for body in bodies)


def test_the_bound_model_name_is_requested():
    with serving(TEXT) as server:
        server.adapters["tuned"] = "somewhere"
        graph(chat(server, model="nothing").bind(model="tuned"), server=QUICK).invoke(QUESTION)
        assert {body["model"] for path, body in server.requests if path == "/chat/completions"} == {"tuned"}


def test_a_bound_token_limit_applies_to_each_call():
    with serving(TEXT) as server:
        built = graph(chat(server).bind(max_tokens=5), server=QUICK, preset="no_retrieval")
        assert built.invoke(QUESTION)["answer"] == TEXT
        assert all(body["max_completion_tokens"] <= 5 for body in server.asked())


def test_options_bound_to_a_local_model_become_its_fields(local):
    generator = make_generator(local.bind(temperature=0.7, max_completion_tokens=9, seed=4), frozenset())
    assert isinstance(generator, LocalGenerator)
    chosen = generator.chat
    assert (chosen.temperature, chosen.max_tokens, chosen.seed) == (0.7, 9, 4)
    assert chosen.lm is local.lm
    assert local.temperature == 0.0
    with pytest.raises(ConfigurationError, match="temperature is 'hot'"):
        make_generator(local.bind(temperature="hot"), frozenset())


def test_a_stop_string_of_a_local_model_ends_its_drafts(local):
    whole = graph(local, preset="no_retrieval", budgets=Budgets(tokens=30)).invoke(QUESTION)["answer"]
    mark = whole[len(whole) // 2 :][:3]
    cut = graph(local.bind(stop=[mark]), preset="no_retrieval", budgets=Budgets(tokens=30)).invoke(QUESTION)
    drafts = [e for e in cut["trace"] if e["type"] == "draft"]
    assert mark not in "".join(drafts[0]["pieces"])


class Seen(BaseCallbackHandler):
    """Records the tags of model calls."""

    def __init__(self) -> None:
        self.tags: list[list[str]] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, *, tags: list[str] | None = None, **kwargs: Any):
        self.tags.append(tags or [])


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_bound_configuration_reaches_every_call(asynchronous, local):
    seen = Seen()
    built = graph(local.with_config(tags=["mine"], callbacks=[seen]), preset="no_retrieval", budgets=Budgets(tokens=8))
    await ask(built, asynchronous)
    assert seen.tags
    assert all("mine" in tags and "nostream" in tags for tags in seen.tags)


def test_bound_copies_share_the_loaded_model(tmp_path):
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    model = LocalChatModel(model=str(tmp_path))
    bound = make_generator(model.bind(temperature=0.5), frozenset()).chat
    assert bound.lm is model.lm
    assert model.model_copy(deep=True).lm is model.lm


# ------------------------------------------------------------------------------------------------------------- retries


class Failing(ScriptedChatModel):
    """Fails a number of times, before or during a reply."""

    failures: list[int] = Field(default_factory=list)
    """Number of tokens that each failing call emits before it fails."""
    error: type[Exception] = ConnectionError

    def _next(self, messages, kwargs):
        if messages[-1].content != "Say yes." and self.failures:
            self.calls.append(messages)
            self.replies.insert(0, [])
            raise self.error("gone")
        return super()._next(messages, kwargs)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        if self.failures and messages[-1].content != "Say yes.":
            after = self.failures.pop(0)
            chunks = super()._stream(messages, **kwargs)
            failures, self.failures = self.failures, []
            for _ in range(after):
                yield next(chunks)
            self.failures = failures
            raise self.error("gone")
        yield from super()._stream(messages, **kwargs)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_failed_draft_is_retried_from_the_text_received(asynchronous):
    tokens = said(TEXT)
    model = Failing(replies=[tokens, tokens[4:]], failures=[4])
    built = graph(model.with_retry(wait_exponential_jitter=False), preset="no_retrieval")
    result = await ask(built, asynchronous)
    assert result["answer"] == TEXT
    assert "without repeating any of it:\nThe bridge was built" in model.calls[1][-1].content
    (draft,) = [e for e in result["trace"] if e["type"] == "draft"][:1]
    assert draft["retries"] == 1
    assert list(draft["failures"]) == ["ConnectionError"]


def test_a_model_without_retries_fails_at_once():
    with pytest.raises(ConnectionError):
        graph(Failing(replies=[said(TEXT)] * 2, failures=[2]), preset="no_retrieval").invoke(QUESTION)


def test_with_retry_limits_attempts_and_exception_types():
    model = Failing(replies=[said(TEXT)] * 9, failures=[0] * 9)
    often = model.with_retry(stop_after_attempt=4, wait_exponential_jitter=False)
    with pytest.raises(ConnectionError):
        graph(often, preset="no_retrieval").invoke(QUESTION)
    assert len(model.failures) == 5
    with pytest.raises(ConnectionError):
        graph(model.with_retry(retry_if_exception_type=(TimeoutError,)), preset="no_retrieval").invoke(QUESTION)
    assert len(model.failures) == 4


def test_a_server_models_retry_wrapper_sets_the_number_of_attempts():
    with serving(TEXT) as server:
        generator = make_generator(chat(server).with_retry(stop_after_attempt=7), frozenset())
        assert isinstance(generator, OpenAIGenerator)
        assert generator.policy.attempts == 7
        policy = ServerPolicy(attempts=2)
        assert make_generator(chat(server).with_retry(), frozenset(), policy).policy is policy


# ------------------------------------------------------------------------------------------------------------ refusals


class Answer(BaseModel):
    """An answer."""

    name: str


@tool
def search(query: str) -> str:
    """Search."""
    return query


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda m: m.with_structured_output(Answer), "A chain, such as the one that with_structured_output returns"),
        (lambda m: m.bind_tools([search]), "bound to tools.*does not answer in plain text"),
        (lambda m: m.bind(response_format={"type": "json_object"}), "bound to response_format"),
        (lambda m: m.with_retry() | RunnableLambda(lambda x: x), "is needed. A chain"),
        (lambda m: RunnableLambda(lambda x: x), "RunnableLambda.; a LangChain chat model is needed"),
        (lambda m: RunnableLambda(lambda x: x).with_retry(), "RunnableLambda.; a LangChain chat model is needed"),
        (lambda m: "gpt-4o", r"the model is 'gpt-4o' .str.; a LangChain.*init_chat_model\('gpt-4o'\)"),
        (lambda m: tiny_llama(), "LocalChatModel.from_causal_lm"),
        (lambda m: None, "the model is None"),
    ],
)
def test_anything_but_a_chat_model_is_refused_with_advice(made, told):
    with serving(TEXT) as server, pytest.raises(ConfigurationError, match=told):
        graph(made(chat(server)), preset="no_retrieval")


# -------------------------------------------------------------------------------------------------------------- agents


def test_a_bound_model_works_in_an_agent(local):
    middleware = DynamicRetrievalMiddleware(WatchedRetriever(), trigger=TokenProbability(0.5))
    agent = create_agent(local.bind(max_tokens=8), [], middleware=[middleware])
    result = agent.invoke({"messages": [HumanMessage(QUESTION["question"])]})
    assert result["messages"][-1].text
