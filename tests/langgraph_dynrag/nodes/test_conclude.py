"""SeaKR's last node: an answer from the rationales and one from the documents, and the more certain one is returned."""

import json
import math

import numpy as np
import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, Settings, Trace, create_dynamic_rag, create_nodes
from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.tasks import DraftResult
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.nodes import Conclude, Generate
from langgraph_dynrag.queries import Question
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.seakr.uncertainty import uncertainty
from langgraph_dynrag.trace.html import page
from langgraph_dynrag.triggers import Once, SelfAwareUncertainty
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTION = "Where was the builder of the bridge born?"
FEW = SampleSpec(samples=2, max_tokens=6)

# U with alpha = 1, by hand (states are centred). Equal: Z Z^T + I = [[3, 2], [2, 3]], determinant 5, U = ln(5) / 2.
ALIKE = [[1.0, -1.0, 0.0, 0.0]] * 2
# Orthogonal states: [[3, 0], [0, 3]], determinant 9, U = ln(9) / 2, which is less certain.
APART = [[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]


class Scripted:
    """A generator with scripted drafts and samples that records its tasks."""

    signals = frozenset({"logprob", "end_states"})
    context_window = None
    opens_reasoning = False

    def __init__(self, drafts, states, texts=("It is.", "So.")):
        self.drafts = [d if isinstance(d, Draft) else Draft((d,), ended="unit") for d in drafts]
        self.states, self.texts, self.tasks, self.sampled = states, texts, [], []

    def draft(self, task, config, on_token):
        self.tasks.append(task)
        return DraftResult(self.drafts[len(self.tasks) - 1], cost={"forward_tokens": 7, "cached_tokens": 100})

    def sample_ends(self, task, spec, seed):
        self.sampled.append((task, spec))
        texts = self.texts if isinstance(self.texts, tuple) else self.texts[len(self.sampled) - 1]
        cost = {"sequences": 2, "tokens": 5, "seconds": 0.1}
        return SampledEnds(np.array(self.states[len(self.sampled) - 1]), texts, cost)

    def token_ids(self, text):
        return None

    def count_tokens(self, text):
        return len(text.split())

    def prompt_tokens(self, messages):
        return 0


def settings_of(generator, **changes):
    prompt = AnswerPrompt(instructions="Answer.", stop=())
    return Settings(
        **{
            "generator": generator,
            "retriever": WatchedRetriever(),
            "trigger": Once(),
            "query": Question(),
            "prompt": prompt,
            "final_answer": SurerAnswer(FEW, alpha=1.0),
            **changes,
        }
    )


BRIDGE = passage(DOCUMENTS[0].page_content, {"title": "Bridge"}, "bridge")
WRITTEN = "Wray built it. So the answer is Hallin."


def state_of(**changes):
    return {
        "question": QUESTION,
        "text": WRITTEN,
        "token_ids": None,
        "hidden": [],
        "evidence": [BRIDGE],
        "sources": [],
        "stage": "concluding",
        "answer_tokens": 9,
        "run_id": "r",
        **changes,
    }


FROM_DOCUMENTS = "It was Wray, of Brannoch. So the answer is Brannoch. Then"


@pytest.mark.parametrize(
    ("states", "taken", "answer", "short"),
    [
        ([ALIKE, APART], "rationales", "Wray built it. So the answer is Orsa.", "Orsa"),
        ([APART, ALIKE], "documents", "It was Wray, of Brannoch. So the answer is Brannoch.", "Brannoch"),
    ],
)
def test_both_answers_are_written_and_judged_as_computed_by_hand(states, taken, answer, short):
    generator = Scripted([" Orsa.", FROM_DOCUMENTS], states)
    out = Conclude(settings_of(generator))(state_of())
    assert (out["stage"], out["answer"], out["short_answer"]) == ("done", answer, short)
    assert (out["text"], out["messages"][0].content) == (answer, answer)
    final, last = out["trace"]
    assert (final["type"], final["taken"], last["type"]) == ("final_answer", taken, "answer")
    a, b = final["candidates"]
    assert (a["basis"], a["short_answer"], b["basis"], b["short_answer"]) == (
        "rationales",
        "Orsa",
        "documents",
        "Brannoch",
    )
    us = [math.log(5) / 2 if z is ALIKE else math.log(9) / 2 for z in states]
    assert [a["uncertainty"], b["uncertainty"]] == pytest.approx(us)
    assert final["reason"] == f"uncertainty {min(us):.3f} < {max(us):.3f}"
    # Two drafts of 7 forward tokens with one "token" each, and two rounds of sampling.
    assert (final["forward_tokens"], final["cached_tokens"], final["generated_tokens"]) == (14, 200, 2)
    assert final["cost"] == {"sequences": 4, "tokens": 10, "seconds": 0.2}
    assert json.loads(json.dumps(out["trace"])) == out["trace"]


def test_rationales_are_judged_without_documents_and_documents_without_rationales():
    generator = Scripted([" Orsa.", FROM_DOCUMENTS], [ALIKE, APART])
    Conclude(settings_of(generator))(state_of())
    a, b = generator.tasks
    assert a.accepted == "Wray built it. So the answer is"
    assert "Cooper's Bridge" not in a.messages[-1].content
    assert b.accepted == ""
    assert "Cooper's Bridge was built by the mason Aldous Wray" in b.messages[-1].content
    assert (a.unit, b.unit) == (Unit("sentence"), Unit("all"))
    # Both are judged from where their answers begin.
    (task_a, spec_a), (task_b, spec_b) = generator.sampled
    assert (task_a.accepted, task_a.messages) == (a.accepted, a.messages)
    assert (task_b.accepted, task_b.messages) == (b.accepted, b.messages)
    assert (spec_a.until, spec_b.until) == ("sentence", "answer")


def test_an_unfinished_answer_from_the_documents_is_asked_for_explicitly():
    generator = Scripted([" Orsa.", "It was Wray and ", " Brannoch."], [APART, ALIKE])
    out = Conclude(settings_of(generator))(state_of())
    assert generator.tasks[2].accepted == "It was Wray and\nSo the answer is"
    assert out["answer"] == "It was Wray and\nSo the answer is Brannoch."


def test_without_an_answer_phrase_the_last_sentence_is_rewritten():
    generator = Scripted([" It was built by Wray.", "Pike did it."], [ALIKE, APART])
    prompt = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
    out = Conclude(settings_of(generator, prompt=prompt))(state_of(text="There is a bridge. Joan built it."))
    assert generator.tasks[0].accepted == "There is a bridge."
    assert out["answer"] == out["short_answer"] == "There is a bridge. It was built by Wray."
    # A single sentence leaves nothing to continue.
    generator = Scripted(["Wray built it.", "Pike did it."], [ALIKE, APART])
    Conclude(settings_of(generator, prompt=prompt))(state_of(text="Joan built it."))
    assert generator.tasks[0].accepted == ""


def test_unknown_answers_and_empty_samples_lose():
    unknown = Scripted([" unknown.", FROM_DOCUMENTS], [ALIKE, APART])
    assert Conclude(settings_of(unknown))(state_of())["short_answer"] == "Brannoch"
    empty = Scripted([" Orsa.", FROM_DOCUMENTS], [APART, ALIKE], [("So.", "So."), ("", " ")])
    out = Conclude(settings_of(empty))(state_of())
    assert out["short_answer"] == "Orsa"
    assert out["trace"][0]["candidates"][1]["uncertainty"] is None
    assert "every sample empty" in str(Trace.from_state({**state_of(), **out}))


def test_without_documents_the_answer_stays_and_nothing_is_computed():
    generator = Scripted([], [])
    out = Conclude(settings_of(generator))(state_of(evidence=[]))
    assert (out["answer"], out["short_answer"], out["stage"]) == (WRITTEN, "Hallin", "done")
    event = out["trace"][0]
    assert (event["taken"], event["reason"], event["candidates"]) == ("written", "no documents stand in the prompt", [])
    assert not generator.tasks
    assert "stays as it was written: no documents stand in the prompt" in str(Trace.from_state({**state_of(), **out}))


def test_documents_outside_the_prompt_are_not_answered_from():
    """They did not fit into the prompt, or went into the parameters."""
    generator = Scripted([], [])
    generator.context_window = 1
    out = Conclude(settings_of(generator))(state_of())
    assert out["trace"][0]["reason"] == "no documents stand in the prompt"
    assert not generator.tasks


def test_without_time_the_answer_stays_and_the_budget_is_recorded():
    generator = Scripted([], [])
    settings = settings_of(generator, budgets=Budgets(seconds=5))
    out = Conclude(settings)(state_of(seconds={"generate": 6.0}))
    assert (out["answer"], out["budget_hit"]) == (WRITTEN, "seconds")
    assert [e["type"] for e in out["trace"]] == ["final_answer", "budget", "answer"]
    assert out["trace"][0]["reason"] == "no time is left"
    # A budget that was reached before is not recorded again.
    again = Conclude(settings)(state_of(seconds={"generate": 6.0}, budget_hit="seconds"))
    assert [e["type"] for e in again["trace"]] == ["final_answer", "answer"]


def test_if_time_runs_out_halfway_the_answer_stays_and_the_cost_is_recorded():
    late = Draft(("It was",), ended="deadline")
    generator = Scripted([" Orsa.", late], [ALIKE])
    out = Conclude(settings_of(generator, budgets=Budgets(seconds=60)))(state_of())
    event = out["trace"][0]
    assert (out["answer"], event["taken"], event["reason"]) == (WRITTEN, "written", "no time is left")
    assert [c["basis"] for c in event["candidates"]] == ["rationales"]
    assert (event["cost"]["sequences"], event["generated_tokens"]) == (2, 2)
    assert generator.tasks[1].deadline < math.inf


def options(**changes):
    return {
        "preset": "seakr",
        "prompt": AnswerPrompt(instructions="Answer.", stop=()),
        "trigger": SelfAwareUncertainty(-6, FEW),
        "evidence_selector": LeastUncertain(FEW),
        "final_answer": SurerAnswer(FEW),
        "lookahead": 16,
        "budgets": Budgets(tokens=24, retrievals=1, closing_tokens=6),
        **changes,
    }


def finals(out):
    return [e for e in out["trace"] if e["type"] == "final_answer"]


def test_end_to_end_the_scores_are_those_of_the_two_prompts(chat, monkeypatch):
    drawn = []
    engine = chat.lm.engine
    whole = engine.end_states
    monkeypatch.setattr(engine, "end_states", lambda r: drawn.append((r, whole(r))) or drawn[-1][1])
    graph = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS[:2]), **options())
    out = graph.invoke({"question": QUESTION})
    (final,) = finals(out)
    a, b = final["candidates"]
    (request_a, ends_a), (request_b, ends_b) = drawn[-2:]
    prompt = options()["prompt"]
    begun = a["text"][: a["text"].index("So the answer is") + len("So the answer is")]
    assert request_a.prompt == chat.encode([*prompt.messages(QUESTION, ()), AIMessage(begun)]).ids
    kept = [passage(d.page_content, d.metadata, d.id) for d in DOCUMENTS[:2] if d.id == out["sources"][0]["id"]]
    assert request_b.prompt == chat.encode([*prompt.messages(QUESTION, kept), AIMessage("")]).ids
    for candidate_, ends in ((a, ends_a), (b, ends_b)):
        said = SampledEnds(ends.states.numpy(force=True), ends.texts)
        assert candidate_["uncertainty"] == pytest.approx(uncertainty(said))
    taken = {"rationales": a, "documents": b}[final["taken"]]
    assert out["answer"] == taken["text"]
    trace = Trace.from_state(out)
    assert trace.counts["sampled_sequences"] == trace.sampling["sequences"] == 2 * len(drawn)
    assert trace.counts["forward_tokens"] >= final["forward_tokens"] > 0
    assert f"taken from the {final['taken']}" in str(trace)
    assert "taken from the" in page(trace)


async def test_async_and_streamed_runs_give_the_same_answer(chat):
    graph = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS[:2]), **options())
    expected = graph.invoke({"question": QUESTION})
    found = await graph.ainvoke({"question": QUESTION})
    assert (found["answer"], finals(found)[0]["taken"]) == (expected["answer"], finals(expected)[0]["taken"])
    # Text that may be replaced is not shown before it is certain.
    parts = [m.content for m, _ in graph.stream({"question": QUESTION}, stream_mode="messages")]
    assert parts == [expected["answer"]]
    told = [e["type"] for e in graph.stream({"question": QUESTION}, stream_mode="custom")]
    assert told.index("final_answer") == told.index("answer") - 1


def test_a_run_interrupted_before_the_node_resumes_with_it(chat):
    whole = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS[:2]), **options()).invoke({"question": QUESTION})
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    retriever = WatchedRetriever(give=DOCUMENTS[:2])
    built = create_dynamic_rag(chat, retriever, checkpointer=saver, interrupt_before=["conclude"], **options())
    built.invoke({"question": QUESTION}, config)
    state = built.get_state(config)
    assert (state.next, state.values["stage"], state.values["answer"]) == (("conclude",), "concluding", "")
    other = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
    out = create_dynamic_rag(other, retriever, checkpointer=saver, **options()).invoke(None, config)
    assert out["answer"] == whole["answer"]
    assert len(retriever.queries) == 1
    # The next question on the thread starts with a clean state.
    again = built.invoke({"question": "Who is old?"}, config)
    assert not finals(again)


def test_a_graph_without_a_final_answer_has_no_such_node(chat):
    with_it, without = (
        create_dynamic_rag(chat, WatchedRetriever(), **options(**changes)).get_graph().nodes
        for changes in ({}, {"final_answer": None})
    )
    assert set(with_it) - set(without) == {"conclude"}
    assert create_nodes(chat, WatchedRetriever(), **options(final_answer=None)).conclude is None


def test_a_custom_graph_that_lacks_the_route_gets_an_error():
    with pytest.raises(ConfigurationError, match="which the node `conclude` handles"):
        Generate(settings_of(Scripted([], [])))(state_of())
