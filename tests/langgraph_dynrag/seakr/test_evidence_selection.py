"""SeaKR's selection of passages, by hand and on a real (tiny, random) model."""

import pytest
from langchain_core.messages import AIMessage

from langgraph_dynrag import AnswerPrompt, Budgets, Trace, create_dynamic_rag, create_nodes
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.triggers import SelfAwareUncertainty
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import sampled
from tests.langgraph_dynrag.running import step
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever

QUESTION = "Who built the bridge in the capital?"
PROMPT = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
FEW = SampleSpec(samples=4, max_tokens=8)


def test_the_passage_with_the_least_uncertainty_is_kept_regardless_of_its_rank():
    found = [passage(f"text {i}", {}, str(i)) for i in range(3)]
    kept = [found[1]]
    tried = []

    def try_out(passages, spec):
        tried.append([p["id"] for p in passages])
        states = [[1.0, -1.0], [1.0, -1.0]] if passages[-1]["id"] == "2" else [[1.0, -1.0], [3.0, 1.0]]
        states = [[9.0, -1.0], [-5.0, 1.0]] if passages[-1]["id"] == "0" else states
        return sampled(states, sequences=2, tokens=5)

    selection = LeastUncertain(FEW).select(found, kept, try_out)
    assert tried == [["1", "0"], ["1", "2"]]
    assert [p["id"] for p in selection.passages] == ["2"]
    assert selection.record["cost"] == {"sequences": 4, "tokens": 10}
    nothing = LeastUncertain(FEW).select(kept, kept, try_out)
    assert nothing.passages == []
    # A passage with only empty samples ranks worse than any number.
    silent = LeastUncertain(FEW).select(
        found, [], lambda ps, _: sampled([[1.0, -1.0]] * 2, None if ps[-1]["id"] == "1" else ["", ""])
    )
    assert [p["id"] for p in silent.passages] == ["1"]
    assert [c["score"] is None for c in silent.record["candidates"]] == [True, False, True]


# ---------------------------------------------------------------------- on a real model


def options(**changes):
    return {
        "preset": "seakr",
        "prompt": PROMPT,
        "trigger": SelfAwareUncertainty(-6, FEW),
        "evidence_selector": LeastUncertain(FEW),
        "final_answer": None,
        "lookahead": 24,
        "budgets": Budgets(tokens=48, retrievals=2),
        **changes,
    }


def test_end_to_end_one_passage_per_search_is_kept_and_all_costs_are_recorded(chat):
    graph = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS[:3]), **options())
    out = graph.invoke({"question": QUESTION})
    trace = Trace.from_state(out)
    assert len(trace.retrievals) == 2
    selections = [e for e in out["trace"] if e["type"] == "evidence_choice"]
    assert [len(e["candidates"]) for e in selections] == [3, 2]
    assert [s["id"] for s in out["sources"]] == [id_ for e in selections for id_ in e["kept"]]
    for e in selections:
        scores = {c["id"]: c["score"] for c in e["candidates"]}
        assert scores[e["kept"][0]] == min(scores.values())
    verdicts = [e for e in out["trace"] if e["type"] == "verdict" and e.get("cost")]
    assert all(e["cost"]["sequences"] == 4 for e in verdicts)
    assert trace.counts["sampled_sequences"] == 4 * (len(verdicts) + 3 + 2)
    assert 0 < trace.counts["sampled_tokens"] <= 8 * trace.counts["sampled_sequences"]
    assert trace.sampling["seconds"] > 0
    # Evidence accumulates: the second sentence with evidence is written with both passages.
    assert len(trace.drafts[-1].evidence) == 2
    assert "least uncertain" in str(trace)
    assert "uncertainty" in trace._repr_html_()


async def test_async_gives_the_same_result(chat):
    graph = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS[:3]), **options())
    expected = graph.invoke({"question": QUESTION})
    found = await graph.ainvoke({"question": QUESTION})
    assert found["answer"] == expected["answer"]
    assert [e["score"] for e in found["trace"] if e["type"] == "verdict" and "score" in e] == [
        e["score"] for e in expected["trace"] if e["type"] == "verdict" and "score" in e
    ]


def test_the_next_draft_reuses_the_prefix_cached_for_the_candidates(chat):
    nodes = create_nodes(chat, WatchedRetriever(give=DOCUMENTS[:2]), **options())
    state = step(nodes, {"question": QUESTION}, "begin", "generate", "monitor", "retrieve", "reformulate", "resume")
    assert len(state["evidence"]) == 1
    work = chat.lm.engine.counts
    step(nodes, state, "generate")
    prompt = chat.encode([*PROMPT.messages(QUESTION, state["evidence"]), AIMessage("")]).ids
    assert (chat.lm.engine.counts - work).cached_tokens >= len(prompt) - 1


def test_a_search_with_only_known_passages_keeps_the_sentence(chat):
    graph = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS[:1]), **options())
    out = graph.invoke({"question": QUESTION})
    selections = [e for e in out["trace"] if e["type"] == "evidence_choice"]
    assert [e["kept"] for e in selections] == [["bridge"], []]
    resumed = [e for e in out["trace"] if e["type"] == "resume"]
    assert resumed[1]["discarded_tokens"] == 0


def test_an_invalid_selector_is_rejected(chat):
    with pytest.raises(ConfigurationError, match="evidence_selector is 3 .*an EvidenceSelector or None is needed"):
        create_dynamic_rag(chat, WatchedRetriever(), evidence_selector=3)
