"""Adaptive-RAG: a question's class decides whether passages are retrieved never, once, or in several steps."""

import threading

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AskComplexity, LocalChatModel, SegmentSelection, Trace, create_dynamic_rag
from langgraph_dynrag.trace.html import page
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.presets.runs import PROMPT, QUESTION, documents, passages_in
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

STEPS = ["It was built by Wray. Then", " So the answer is Wray.", "So the answer is Aldous Wray."]
ROUTES = {
    # replies, queries, passages in the prompts, answer
    "none": (["So the answer is Joan."], [], [0], "So the answer is Joan."),
    "single": (["So the answer is Wray."], [QUESTION], [1], "So the answer is Wray."),
    "multi": (STEPS, [QUESTION, "It was built by Wray."], [1, 2, 2], "So the answer is Aldous Wray."),
}
LABELS = {"none": "A", "single": "B", "multi": "C"}


def built(replies, **options):
    model = ScriptedChatModel(replies=[said(r) for r in replies], reports=False)
    retriever = WatchedRetriever(give=lambda q: documents(["bridge" if q == QUESTION else "wray"]))
    return create_dynamic_rag(model, retriever, preset="adaptive_rag", prompt=PROMPT, **options), model, retriever


def check(route, out, calls, retriever):
    _, queries, shown, answer = ROUTES[route]
    assert retriever.queries == queries
    assert [len(passages_in(call)) for call in calls] == shown
    assert out["answer"] == answer
    (event,) = events(out, "route")
    assert (event["route"], event["problem"]) == (route, None)
    assert not out["warnings"]
    assert bool(events(out, "final_answer")) is (route == "multi")
    return event


@pytest.mark.parametrize("route", ROUTES)
def test_a_function_decides_how_the_question_is_answered(route):
    asked = []

    def classifier(question):
        asked.append(question)
        return route

    graph, model, retriever = built(ROUTES[route][0], classifier=classifier)
    event = check(route, graph.invoke({"question": QUESTION}), model.calls, retriever)
    assert asked == [QUESTION]
    assert event["by"] == "classifier"
    assert "reply" not in event


@pytest.mark.parametrize("route", ROUTES)
def test_by_default_the_model_is_asked_with_the_letters_of_the_paper(route):
    graph, model, retriever = built([LABELS[route], *ROUTES[route][0]])
    out = graph.invoke({"question": QUESTION})
    event = check(route, out, model.calls[1:], retriever)
    assert (event["by"], event["reply"]) == ("the model", LABELS[route])
    assert model.calls[0][-1].content == AskComplexity().prompt(QUESTION)
    assert model.options[0]["max_tokens"] == 16
    told = {"none": "no retrieval", "single": "one retrieval", "multi": "several retrievals"}[route]
    trace = Trace.from_state(out)
    assert f"  {told}, classified by the model" in str(trace).splitlines()
    assert f"{told}, classified by the model" in page(trace).lower()


@pytest.mark.parametrize("route", ROUTES)
async def test_the_question_is_also_classified_asynchronously(route):
    graph, model, retriever = built([LABELS[route], *ROUTES[route][0]])
    check(route, await graph.ainvoke({"question": QUESTION}), model.calls[1:], retriever)
    loop = threading.current_thread()

    async def awaited(question):
        return route

    def called(question):
        assert threading.current_thread() is not loop  # it may block
        return route

    for classifier in (awaited, called):
        graph, model, retriever = built(ROUTES[route][0], classifier=classifier)
        check(route, await graph.ainvoke({"question": QUESTION}), model.calls, retriever)


def test_an_asynchronous_classifier_needs_an_asynchronous_run():
    async def classifier(question):
        return "none"

    graph, _, _ = built([], classifier=classifier)
    with pytest.raises(ConfigurationError, match=r"classifier classifier is asynchronous, .* use ainvoke or astream"):
        graph.invoke({"question": QUESTION})


@pytest.mark.parametrize("returned", ["A", None, ["none"], 1])
def test_anything_but_a_class_is_an_error(returned):
    graph, _, retriever = built([], classifier=lambda _: returned)
    with pytest.raises(ConfigurationError, match="one of 'none', 'single', 'multi' is needed"):
        graph.invoke({"question": QUESTION})
    assert retriever.queries == []


def failing(question):
    raise OSError("the classifier's server is gone")


@pytest.mark.parametrize(
    ("classifier", "replies", "problem"),
    [
        (failing, [], "OSError: the classifier's server is gone"),
        (AskComplexity(), ["Well, I think"], "the reply names no class"),
        (AskComplexity(), [""], "the reply is empty"),
    ],
)
def test_a_failure_means_one_retrieval_and_a_warning(classifier, replies, problem):
    graph, _, retriever = built([*replies, "So the answer is Wray."], classifier=classifier)
    out = graph.invoke({"question": QUESTION})
    assert retriever.queries == [QUESTION]
    assert out["short_answer"] == "Wray"
    assert out["warnings"] == [f"the question was not classified, and one retrieval was made: {problem}"]
    assert f"one retrieval, not classified: {problem}" in str(Trace.from_state(out))


def test_errors_of_the_code_are_not_hidden():
    graph, _, _ = built([], classifier=lambda _: undefined)  # noqa: F821
    with pytest.raises(NameError):
        graph.invoke({"question": QUESTION})


def test_the_route_is_in_the_state_and_a_stopped_run_keeps_it():
    calls = []

    def classifier(question):
        calls.append(question)
        return "single"

    thread = {"configurable": {"thread_id": "1"}}
    graph, _, retriever = built(
        ["So the answer is Wray."], classifier=classifier, checkpointer=InMemorySaver(), interrupt_before=["retrieve"]
    )
    graph.invoke({"question": QUESTION}, thread)
    assert graph.get_state(thread).values["route"] == "single"
    assert graph.invoke(None, thread)["answer"] == "So the answer is Wray."
    assert retriever.queries == calls == [QUESTION]


def test_each_question_of_a_thread_has_its_own_route():
    routes = iter(["none", "multi", "single"])
    graph, _, retriever = built(
        ["So the answer is Joan.", *STEPS, "So the answer is Wray."],
        classifier=lambda _: next(routes),
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    counts = []
    for _ in range(3):
        graph.invoke({"question": QUESTION}, thread)
        counts.append(len(retriever.queries))
    assert counts == [0, 2, 3]


def test_a_follow_up_question_is_classified_as_it_was_condensed():
    asked = []

    def classifier(question):
        asked.append(question)
        return "none"

    graph, _, _ = built(["Where was Aldous Wray born?", "So the answer is Hallin."], classifier=classifier)
    graph.invoke({"messages": [HumanMessage(QUESTION), AIMessage("Wray."), HumanMessage("Where was he born?")]})
    assert asked == ["Where was Aldous Wray born?"]


def test_answers_without_a_reader_are_streamed():
    graph, _, _ = built(["So the answer is Joan."], classifier=lambda _: "none")
    parts = list(graph.stream({"question": QUESTION}, stream_mode=["custom", "messages"]))
    kinds = [event["type"] for mode, event in parts if mode == "custom"]
    assert kinds[:2] == ["question", "route"]
    shown = [message.content for mode, (message, _) in [p for p in parts if p[0] == "messages"]]
    assert "".join(shown) == "So the answer is Joan."


def test_any_method_can_be_the_one_for_complex_questions():
    model = ScriptedChatModel(replies=[said("So the answer is Joan.", Joan=0.1)])
    graph = create_dynamic_rag(model, WatchedRetriever(), preset="flare", prompt=PROMPT, classifier=lambda _: "none")
    assert graph.invoke({"question": QUESTION})["sources"] == []


def test_methods_that_depend_on_their_trigger_are_refused(tiny_lm):
    with pytest.raises(ConfigurationError, match="has some questions answered without WrittenTag"):
        create_dynamic_rag(
            ScriptedChatModel(replies=[]), WatchedRetriever(), preset="search_r1", classifier=AskComplexity()
        )
    chat = LocalChatModel.from_causal_lm(tiny_lm)
    with pytest.raises(ConfigurationError, match="has some questions answered without Reflection"):
        create_dynamic_rag(
            chat, WatchedRetriever(), preset="self_rag", selection=SegmentSelection(), classifier=AskComplexity()
        )


@pytest.mark.parametrize("classifier", ["multi", 3, AskComplexity])
def test_a_classifier_of_another_type_is_refused(classifier):
    with pytest.raises(ConfigurationError, match=r"classifier is .* is needed"):
        built([], classifier=classifier)
