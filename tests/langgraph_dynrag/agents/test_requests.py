"""Requests with evidence and signal settings, and responses without the signals."""

from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.requests import (
    answer_in,
    asking_request,
    cleaned,
    generator_of,
    has_room,
    is_placeholder,
    is_refusal,
    never_given,
    placeholder,
    question_of_request,
    repeated_call,
    signal_settings,
    usage_of,
    with_evidence,
    with_usage,
)
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.queries import Question
from langgraph_dynrag.triggers import RIND, Entropy, Never
from tests.langgraph_dynrag.agents.scripted_agent import SURE, UNSURE, AgentModel, calling, population
from tests.langgraph_dynrag.agents.watched import agent_of
from tests.langgraph_dynrag.scripted import WatchedRetriever


async def test_log_probabilities_are_requested_and_removed_from_the_answer(run):
    agent, model, _ = agent_of(UNSURE, SURE)
    result = await run(agent)
    assert all(o["logprobs"] is True for o in model.options)
    assert "logprobs" not in result["messages"][-1].response_metadata


async def test_top_logprobs_are_only_requested_for_triggers_that_need_entropy(run):
    agent, model, _ = agent_of(UNSURE, SURE, trigger=Entropy(0.3), query=Question(), top_logprobs=7)
    await run(agent)
    assert model.options[0]["top_logprobs"] == 7
    agent, model, _ = agent_of(SURE)
    await run(agent)
    assert "top_logprobs" not in model.options[0]


async def test_braces_in_questions_and_passages_are_plain_text(run):
    document = Document("Fact {question}.", id="1")
    agent, model, _ = agent_of(UNSURE, SURE, retriever=WatchedRetriever(give=[document]))
    await run(agent, {"messages": [HumanMessage("What is {passages}?")]})
    assert model.calls[1][-1].content == (
        "Use these passages where they help:\n[1] Fact {question}.\n\nWhat is {passages}?"
    )


async def test_a_question_may_contain_images(run):
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    asked = HumanMessage([{"type": "text", "text": "Who built this bridge?"}, image])
    agent, model, retriever = agent_of(UNSURE, SURE)
    result = await run(agent, {"messages": [asked]})
    first, *rest = model.calls[1][-1].content
    assert "Aldous Wray" in first["text"]
    assert rest == asked.content
    assert retriever.queries[0].startswith("Who built this bridge?")
    assert result["messages"][0].content == asked.content


def request(*messages, model=None, **settings):
    return ModelRequest(
        model=model or AgentModel(replies=[]),
        messages=list(messages or [HumanMessage("Who built it?")]),
        system_message=SystemMessage("Be brief."),
        model_settings=settings,
        tools=[population],
    )


def test_placeholders_are_told_from_other_messages():
    assert is_placeholder(placeholder())
    assert placeholder().content == ""
    assert placeholder().id != placeholder().id
    for other in (AIMessage(""), AIMessage("", response_metadata={"dynprag": {}}), HumanMessage(""), None):
        assert not is_placeholder(other)


def test_the_question_is_the_last_human_message_with_text():
    asked = HumanMessage("And when?")
    assert question_of_request([HumanMessage("Who?"), AIMessage("Joan."), asked, calling(town="A")]) is asked
    assert question_of_request([HumanMessage("Who?"), HumanMessage(" \n")]) is None
    assert question_of_request([AIMessage("Hello.")]) is None


def test_a_request_for_a_query_has_no_conversation_tools_or_format():
    asked = asking_request(request(HumanMessage("Who?"), AIMessage("Joan."), temperature=0.5), "Write a query.")
    assert [m.content for m in asked.messages] == ["Write a query."]
    assert (asked.system_message, asked.tools, asked.response_format) == (None, [], None)
    assert asked.model_settings == {"temperature": 0.5}
    local = asking_request(request(model=LocalChatModel()), "Write a query.")
    assert local.model_settings == {"max_tokens": 48}


def test_only_a_single_message_without_calls_is_an_answer():
    answer = AIMessage("It was Joan.")
    broken = AIMessage("", invalid_tool_calls=[{"name": "a", "args": "{", "id": "1", "error": None}])
    assert answer_in(ModelResponse([answer])) is answer
    for result in ([calling(town="A")], [answer, answer], [broken], [], [HumanMessage("?")]):
        assert answer_in(ModelResponse(result)) is None


def test_a_call_repeats_an_earlier_one_only_within_the_same_question():
    made = request(HumanMessage("Old?"), calling(town="Old"), HumanMessage("New?"), calling(town="A"))
    assert repeated_call(ModelResponse([calling(town="A")]), made) == "population"
    assert repeated_call(ModelResponse([calling(town="Old")]), made) is None
    assert repeated_call(ModelResponse([calling("other", town="A")]), made) is None
    assert repeated_call(ModelResponse([AIMessage("Joan.")]), made) is None


def test_the_usage_of_all_calls_is_put_on_the_first_answer():
    tokens = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    answer = AIMessage("It was Joan.", usage_metadata=tokens)
    assert usage_of(ModelResponse([answer])) == Usage(1, 1, tokens)
    assert usage_of(ModelResponse([AIMessage("")])) == Usage(1, 0, None)
    total = Usage(2, 2, {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10})
    found = with_usage(ModelResponse([answer]), total)
    assert found.result[0].usage_metadata == total.tokens
    assert answer.usage_metadata == tokens


def test_signals_that_the_user_requested_stay_in_the_response():
    answer = AIMessage("Joan.", response_metadata={"logprobs": {"content": []}, "dynprag": {}, "model_name": "m"})

    def left(**settings):
        return set(cleaned(ModelResponse([answer]), request(**settings)).result[0].response_metadata)

    assert left() == {"model_name"}
    assert left(logprobs=True) == {"model_name", "logprobs"}
    assert left(signals=["entropy"]) == {"model_name", "dynprag"}
    assert set(answer.response_metadata) == {"logprobs", "dynprag", "model_name"}


def test_signals_are_requested_as_the_trigger_and_the_model_need_them():
    def settings(model=None, top_logprobs=None, **options):
        given = {} if top_logprobs is None else {"top_logprobs": top_logprobs}
        watch = WatchOptions(retriever=WatchedRetriever(), **options)
        return signal_settings(watch, request(model=model, **given))

    assert settings() == {"logprobs": True}
    assert settings(trigger=Entropy(1.0)) == {"logprobs": True, "top_logprobs": 5}
    assert settings(trigger=Entropy(1.0), top_logprobs=9) == {"logprobs": True, "top_logprobs": 9}
    assert settings(trigger=Never(), query=Question()) == {}
    assert settings(model=LocalChatModel()) == {"logprobs": True, "signals": ["entropy"]}
    attention = settings(model=LocalChatModel(), trigger=RIND(0.1), query=Question())
    assert attention == {"logprobs": True, "signals": ["attention", "entropy"]}


def test_an_error_is_a_refusal_only_if_the_call_itself_was_refused():
    def with_status(status):
        error = RuntimeError("refused")
        error.status_code = status
        return error

    assert all(is_refusal(e) for e in (TypeError(), ValueError(), with_status(400), with_status(422)))
    assert not any(is_refusal(e) for e in (ConnectionError(), RuntimeError(), with_status(429), with_status(503)))


def evidence(*texts):
    return {"evidence": [passage(text, {}, None) for text in texts]}


def test_evidence_is_added_to_the_question_of_the_request_only():
    options = WatchOptions(retriever=WatchedRetriever())
    asked = request(HumanMessage("Who built it?"), calling(town="A"))
    generator = generator_of(asked.model, options)
    messages, affected = with_evidence(options, asked, generator, evidence("Aldous Wray built it."))
    assert affected == []
    assert messages[0].content.endswith("[1] Aldous Wray built it.\n\nWho built it?")
    assert messages[1:] == asked.messages[1:]
    assert asked.messages[0].content == "Who built it?"
    assert has_room(options, asked, generator, evidence("Aldous Wray built it."))
    assert not has_room(options, asked, generator, evidence())


def test_evidence_that_exceeds_the_budget_is_cut_and_named():
    options = WatchOptions(retriever=WatchedRetriever(), context_tokens=16)
    asked = request()
    found = evidence("word " * 200)
    messages, affected = with_evidence(options, asked, generator_of(asked.model, options), found)
    assert affected == [found["evidence"][0]["id"]]
    assert len(messages[0].content) < 200


def test_signals_that_a_model_can_never_give_are_named():
    attention = WatchOptions(retriever=WatchedRetriever(), trigger=RIND(0.1), query=Question())
    assert never_given(AgentModel(replies=[]), attention) == ["attention"]
    assert never_given(AgentModel(replies=[]), WatchOptions(retriever=WatchedRetriever())) == []
