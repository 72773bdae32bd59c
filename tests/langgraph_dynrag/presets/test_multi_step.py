"""IRCoT and ITER-RETGEN, worked out by hand: queries, passages in each prompt, and where they stop."""

import json

import pytest
from langchain_core.documents import Document
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AnswerPrompt, Budgets, Reader, Trace, create_dynamic_rag, get_preset
from langgraph_dynrag.presets.file import CalibratedFor, PresetFile
from langgraph_dynrag.trace.html import page
from langgraph_dynrag.triggers import ReasoningSteps, WholeAnswers
from rag_backbone.errors import ConfigurationError, NoAnswerError
from tests.langgraph_dynrag.presets.runs import PROMPT, QUESTION, documents, passages_in, run
from tests.langgraph_dynrag.running import begun, events
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

FOUND = {
    QUESTION: ["bridge", "tamsin"],
    "The bridge was built by the mason Aldous Wray.": ["wray", "bridge"],
    "He was born in Hallin.": ["pike"],
}
STEPS = [
    said("The bridge was built by the mason Aldous Wray. He was a painter"),
    said(" He was born in Hallin. So"),
    said(" So the answer is Hallin."),
    said("Aldous Wray was the mason. So the answer is Aldous Wray."),
]


def found(**changes):
    return WatchedRetriever(give=lambda query: documents({**FOUND, **changes}[query]))


def titles(messages):
    known = {"The Cooper's": "bridge", "Bridge: ": "bridge", "Aldous": "wray", "Tamsin": "tamsin", "Joan": "pike"}
    shown = passages_in(messages)
    return [next(name for start, name in known.items() if line.startswith(start)) for line in shown]


# ---------------------------------------------------------------------- IRCoT


def check_ircot(out, model, retriever):
    # One search for the question and one for each sentence, but none for the sentence with the answer.
    assert retriever.queries == list(FOUND)
    # Passages accumulate in the order in which they were found.
    collected = ["bridge", "tamsin", "wray", "pike"]
    assert [titles(call) for call in model.calls] == [collected[:2], collected[:3], collected, collected]
    # Each step continues the sentences so far, of which only the first one of each reply is taken; the reader does not.
    steps = "The bridge was built by the mason Aldous Wray. He was born in Hallin."
    assert [begun(call) for call in model.calls] == ["", steps.partition(" He was")[0], steps, ""]
    assert "painter" not in str(model.calls)
    assert out["answer"] == "Aldous Wray was the mason. So the answer is Aldous Wray."
    assert out["short_answer"] == "Aldous Wray"
    assert out["messages"][-1].content == out["answer"]
    (event,) = events(out, "final_answer")
    assert (event["taken"], event["candidates"]) == ("documents", [])
    assert event["reason"] == "read again with the 4 passages collected"
    trace = Trace.from_state(out)
    assert "taken from the documents: read again with the 4 passages collected" in str(trace)
    assert "So the answer is Hallin." in str(trace)  # the reasoning stays in the trace
    assert "read again with" in page(trace)
    json.dumps(trace.to_dict())


def test_ircot_alternates_sentences_and_searches_and_then_reads_what_it_collected():
    check_ircot(*run(STEPS, "ircot", found()))


async def test_ircot_runs_asynchronously():
    model, retriever = ScriptedChatModel(replies=STEPS), found()
    graph = create_dynamic_rag(model, retriever, preset="ircot", prompt=PROMPT)
    check_ircot(await graph.ainvoke({"question": QUESTION}), model, retriever)


def test_ircot_stops_after_its_steps_without_another_search():
    sentences = [f"Fact {i} is known." for i in range(1, 9)]
    replies = [said(f" {s} And") for s in sentences]
    out, model, retriever = run(
        [*replies, said("So the answer is Wray.")], "ircot", WatchedRetriever(give=lambda _: documents(["wray"]))
    )
    assert retriever.queries == [QUESTION, *sentences[:7]]
    # Eight steps and the reader; the short answer of the reasoning is not asked for.
    assert len(model.calls) == 9
    assert out["answer"] == "So the answer is Wray."
    assert events(out, "verdict")[-1]["reason"] == "8 of 8 steps are written"
    assert not events(out, "closing")


@pytest.mark.parametrize(("steps", "searches"), [(1, 1), (2, 2)])
def test_the_number_of_steps_is_an_option(steps, searches):
    _, model, retriever = run(
        [*STEPS[:steps], said("So the answer is Wray.")], "ircot", found(), trigger=ReasoningSteps(steps)
    )
    assert len(retriever.queries) == searches
    assert len(model.calls) == steps + 1


def test_ircot_collects_no_more_than_its_limit_and_the_earliest_stay():
    # A search that adds nothing leaves the prompt as it was, and so the rest of the reply stays valid.
    replies = [STEPS[0], said(" He was born in Hallin. So the answer"), said(" answer is Hallin."), STEPS[3]]
    out, model, _ = run(replies, "ircot", found(), max_passages=3)
    assert [titles(call) for call in model.calls] == [["bridge", "tamsin"], *[["bridge", "tamsin", "wray"]] * 3]
    assert begun(model.calls[2]).endswith("He was born in Hallin. So the")
    assert [s["id"] for s in out["sources"]] == ["bridge", "tamsin", "wray"]
    assert [e.get("left_out") for e in events(out, "resume")] == [None, None, ["pike"]]
    assert "1 left out, as no more passages may be collected" in str(Trace.from_state(out))


def test_the_published_limit_is_fifteen_passages():
    many = [Document(f"Fact {i} is known.", id=str(i)) for i in range(40)]
    shown = iter([many[:10], many[8:20], many[30:]])
    replies = [STEPS[0], said(" He was born in Hallin. So the answer"), said(" answer is Hallin."), STEPS[3]]
    out, model, _ = run(replies, "ircot", WatchedRetriever(give=lambda _: next(shown)), k=12)
    assert [len(passages_in(call)) for call in model.calls] == [10, 15, 15, 15]
    assert [s["id"] for s in out["sources"]] == [str(i) for i in range(15)]


def test_a_direct_reader_writes_the_short_answer_alone():
    replies = [*STEPS[:3], said(" Aldous Wray.")]
    out, model, _ = run(replies, "ircot", found(), final_answer=Reader("direct"))
    assert begun(model.calls[-1]) == "So the answer is"
    assert len(titles(model.calls[-1])) == 4
    assert (out["answer"], out["short_answer"]) == ("So the answer is Aldous Wray.", "Aldous Wray")


def test_a_reader_without_a_short_answer_is_asked_for_it():
    replies = [*STEPS[:3], said("Wray was a mason."), said(" Aldous Wray. He")]
    out, model, _ = run(replies, "ircot", found())
    assert begun(model.calls[-1]) == "Wray was a mason. So the answer is"
    assert out["answer"] == "Wray was a mason. So the answer is Aldous Wray."


def test_without_an_answer_phrase_the_reader_s_whole_text_is_the_answer():
    prompt = AnswerPrompt(answer_phrase=None)
    replies = [said("It is old. It"), [], said("It was Wray.")]
    for style in ("cot", "direct"):
        out, _, _ = run(
            replies,
            "ircot",
            WatchedRetriever(give=lambda _: documents(["wray"])),
            prompt=prompt,
            final_answer=Reader(style),
        )
        assert out["answer"] == out["short_answer"] == "It was Wray."


def test_if_the_reader_writes_nothing_the_reasoning_is_the_answer():
    out, _, _ = run([*STEPS[:3], [], []], "ircot", found())
    assert out["answer"].endswith("He was born in Hallin. So the answer is Hallin.")
    assert (out["short_answer"], events(out, "final_answer")[0]["taken"]) == ("Hallin", "written")
    with pytest.raises(NoAnswerError):
        run([[]] * 6, "ircot", found())


def test_a_reader_that_has_no_time_left_writes_the_short_answer():
    slow = WatchedRetriever(give=lambda _: documents(["wray"]), delay=0.3)
    out, model, _ = run([said(" Wray.")], "ircot", slow, budgets=Budgets(seconds=0.2))
    assert begun(model.calls[0]) == "So the answer is"
    assert out["short_answer"] == "Wray"
    assert [e["which"] for e in events(out, "budget")] == ["seconds"]


def test_ircot_streams_tokens_and_returns_one_message():
    graph = create_dynamic_rag(ScriptedChatModel(replies=STEPS), found(), preset="ircot", prompt=PROMPT)
    parts = list(graph.stream({"question": QUESTION}, stream_mode=["custom", "messages"]))
    told = [event for mode, event in parts if mode == "custom"]
    text = "".join(e["text"] for e in told if e["type"] == "token")
    assert text.endswith("Aldous Wray was the mason. So the answer is Aldous Wray.")
    assert [e["type"] for e in told if e["type"] in ("retrieval", "final_answer", "answer")] == [
        *["retrieval"] * 3,
        "final_answer",
        "answer",
    ]
    shown = "".join(message.content for mode, (message, _) in [p for p in parts if p[0] == "messages"])
    assert shown == "Aldous Wray was the mason. So the answer is Aldous Wray."


@pytest.mark.parametrize(
    ("preset", "replies", "stops"),
    [("ircot", STEPS, 3), ("iter_retgen", [STEPS[3], STEPS[3]], 2)],
)
def test_a_run_that_was_stopped_before_each_search_continues(preset, replies, stops):
    whole, _, _ = run(replies, preset, WatchedRetriever())
    model, retriever = ScriptedChatModel(replies=replies), WatchedRetriever()
    memory, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    for count in range(stops + 1):
        graph = create_dynamic_rag(  # built again each time, as after a restart
            model, retriever, preset=preset, prompt=PROMPT, checkpointer=memory, interrupt_before=["retrieve"]
        )
        graph.invoke(None if count else {"question": QUESTION}, thread)
        assert len(retriever.queries) == count
        assert bool(graph.get_state(thread).next) is (count < stops)
    assert graph.get_state(thread).values["answer"] == whole["answer"]


# ---------------------------------------------------------------------- ITER-RETGEN

FIRST = "The mason was Joan Pike. So the answer is Joan Pike."
SECOND = "The mason was Aldous Wray. So the answer is Aldous Wray."


def check_iter_retgen(out, model, retriever):
    assert retriever.queries == [QUESTION, f"{FIRST} {QUESTION}"]
    # Only the passages of this iteration, and nothing of the answer before.
    assert [titles(call) for call in model.calls] == [["bridge", "tamsin"], ["wray"]]
    assert "Joan Pike" not in str(model.calls[1])
    assert (out["answer"], out["short_answer"]) == (SECOND, "Aldous Wray")
    assert [e["reason"] for e in events(out, "verdict")] == ["answer 1 of 2 is written", "answer 2 of 2 is written"]
    assert not events(out, "budget")
    trace = Trace.from_state(out)
    assert f"discarded: {FIRST}" in str(trace)
    assert "  -> answer 1 of 2 is written" in str(trace).splitlines()
    assert "answer 1 of 2 is written".capitalize() in page(trace)


def by_answer():
    return WatchedRetriever(give=lambda q: documents(["bridge", "tamsin"] if q == QUESTION else ["wray"]))


def test_iter_retgen_searches_with_the_whole_answer_and_writes_it_again():
    check_iter_retgen(*run([said(FIRST), said(SECOND)], "iter_retgen", by_answer()))


async def test_iter_retgen_runs_asynchronously():
    model, retriever = ScriptedChatModel(replies=[said(FIRST), said(SECOND)]), by_answer()
    graph = create_dynamic_rag(model, retriever, preset="iter_retgen", prompt=PROMPT)
    check_iter_retgen(await graph.ainvoke({"question": QUESTION}), model, retriever)


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_iter_retgen_writes_as_many_answers_as_it_has_iterations(iterations):
    answers = [f"It was builder {i}. So the answer is {i}." for i in range(iterations)]
    out, model, retriever = run(
        [said(a) for a in answers], "iter_retgen", by_answer(), trigger=WholeAnswers(iterations)
    )
    assert retriever.queries == [QUESTION, *(f"{a} {QUESTION}" for a in answers[:-1])]
    assert len(model.calls) == iterations
    assert out["answer"] == answers[-1]


def test_the_query_is_the_answer_however_long_it_is_and_even_without_a_short_answer():
    long = " ".join(f"word{i}" for i in range(200)) + "."
    replies = [said(long), said("It was Wray."), said(" Wray.")]
    out, model, retriever = run(replies, "iter_retgen", by_answer(), budgets=Budgets(tokens=300))
    assert retriever.queries[1] == f"{long} {QUESTION}"
    # Only the last answer is completed.
    assert begun(model.calls[2]) == "It was Wray. So the answer is"
    assert out["answer"] == "It was Wray. So the answer is Wray."


def test_if_a_later_search_finds_nothing_the_answer_before_stays():
    retriever = WatchedRetriever(give=lambda q: documents(["bridge"]) if q == QUESTION else [])
    out, model, _ = run([said(FIRST)], "iter_retgen", retriever)
    assert out["answer"] == FIRST
    assert len(retriever.queries) == 2
    assert len(model.calls) == 1


@pytest.mark.parametrize("changes", [{"recheck": False}, {"resume_at": "end"}])
def test_settings_that_would_keep_an_earlier_answer_are_refused(changes):
    with pytest.raises(ConfigurationError, match=r"WholeAnswers\(iterations=2\) writes each answer from the start"):
        run([], "iter_retgen", **changes)


# ---------------------------------------------------------------------- both, as files and as settings


@pytest.mark.parametrize(
    ("preset", "trigger"), [("ircot", ReasoningSteps(3)), ("iter_retgen", WholeAnswers(3)), ("adaptive_rag", None)]
)
def test_a_preset_survives_a_round_trip_through_a_file(preset, trigger, tmp_path):
    published = get_preset(preset)
    trigger = trigger or published.settings["trigger"]
    file = PresetFile(preset, "hotpotqa", "paper", trigger, CalibratedFor("m", "f", "p"))
    read = get_preset(file.write(tmp_path / "p.json"))
    assert read.settings["trigger"] == trigger
    assert {**read.settings, "budgets": None} == {
        **get_preset(preset, dataset="hotpotqa").settings,
        "trigger": trigger,
        "budgets": None,
    }
    assert repr(trigger) in repr(read)


def test_the_published_values():
    ircot, iterated = get_preset("ircot").settings, get_preset("iter_retgen").settings
    assert (ircot["trigger"], ircot["max_passages"], ircot["k"]) == (ReasoningSteps(8), 15, 4)
    assert (iterated["trigger"], iterated["k"]) == (WholeAnswers(2), 5)
    assert repr(ircot["final_answer"]) == "Reader(style='cot')"
