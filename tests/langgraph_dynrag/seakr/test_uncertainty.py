"""SeaKR's uncertainty: the formula by hand, and on samples of a real (tiny, random) model."""

import math

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from langchain_core.messages import AIMessage

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, Trace, create_dynamic_rag, create_nodes, get_preset
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.seakr.uncertainty import log_gram_determinant, total_cost, uncertainty
from langgraph_dynrag.triggers import SelfAwareUncertainty
from rag_backbone.errors import SignalUnavailableError
from tests.langgraph_dynrag.running import step
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever

QUESTION = "Who built the bridge in the capital?"
PROMPT = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
FEW = SampleSpec(samples=4, max_tokens=8)


# ---------------------------------------------------------------------- the formula


def slow_uncertainty(z: np.ndarray, alpha: float) -> float:
    """Compute U as in the paper: explicit centring matrix, and the determinant as the product of eigenvalues."""
    m, d = z.shape
    j = np.eye(d) - np.ones((d, 1)) @ np.ones((1, d)) / d
    eigenvalues = np.linalg.eigvalsh(z @ j @ z.T + alpha * np.eye(m))
    return sum(math.log(value) for value in eigenvalues) / m


def test_the_determinant_matches_a_hand_computation():
    # Both states are already centred: Z Z^T = [[2, 2], [2, 2]]; with alpha = 1 the determinant is 3 * 3 - 2 * 2 = 5.
    assert log_gram_determinant(np.array([[1.0, -1.0], [1.0, -1.0]]), 1.0) == pytest.approx(math.log(5) / 2)
    # Orthogonal states: Z Z^T = [[2, 0], [0, 2]]; the determinant is 3 * 3 = 9, so they are more uncertain.
    orthogonal = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    assert log_gram_determinant(orthogonal, 1.0) == pytest.approx(math.log(9) / 2)
    # J subtracts the mean of each state, so adding a constant to a state changes nothing.
    assert log_gram_determinant(orthogonal + np.array([[5.0], [-3.0]]), 1.0) == pytest.approx(math.log(9) / 2)


@pytest.mark.parametrize("shape", [(1, 8), (5, 16), (20, 64), (20, 6)])
@pytest.mark.parametrize("alpha", [1e-3, 0.5])
def test_the_determinant_matches_the_slow_form(shape, alpha):
    z = np.random.default_rng(3).normal(0.4, 2.0, shape)
    assert log_gram_determinant(z, alpha) == pytest.approx(slow_uncertainty(z, alpha), abs=1e-6)


def test_equal_states_minimise_uncertainty_and_the_published_threshold_needs_twenty_of_them():
    z = np.random.default_rng(0).normal(0, 1, (1, 100))
    length = float(((z - z.mean()) ** 2).sum())
    for m in (5, 20):
        equal = log_gram_determinant(np.repeat(z, m, 0))
        assert equal == pytest.approx(((m - 1) * math.log(1e-3) + math.log(m * length + 1e-3)) / m, abs=1e-5)
        assert (equal < -6) is (m == 20)
        apart = np.random.default_rng(1).normal(0, 1, (m, 100))
        assert log_gram_determinant(apart) > 0


def test_empty_samples_are_ignored_and_uncertainty_is_none_if_all_are_empty():
    z = np.random.default_rng(0).normal(0, 1, (3, 8))
    some = uncertainty(SampledEnds(z, ("It was.", " \n", "So.")))
    assert some == pytest.approx(log_gram_determinant(z[[0, 2]]))
    assert uncertainty(SampledEnds(z, ("", " ", "\n"))) is None


# ---------------------------------------------------------------------- on a real model


@pytest.mark.parametrize("state", ["layer", "mlp"])
def test_the_score_matches_plain_forward_passes_over_the_samples(chat, state, monkeypatch):
    spec = SampleSpec(samples=4, max_tokens=8, state=state)
    drawn = []
    engine = chat.lm.engine
    monkeypatch.setattr(engine, "end_states", lambda r, real=engine.end_states: drawn.append(real(r)) or drawn[-1])
    nodes = create_nodes(
        chat, WatchedRetriever(), preset="seakr", prompt=PROMPT, lookahead=24, trigger=SelfAwareUncertainty(-6, spec)
    )
    found = step(nodes, {"question": QUESTION}, "begin", "generate", "monitor")
    prompt = chat.encode([*PROMPT.messages(QUESTION, ()), AIMessage("")]).ids
    (ends,) = drawn
    rows = []
    for ids in ends.token_ids:
        captured = []
        module = chat.lm.model.model.layers[1] if state == "layer" else chat.lm.model.model.layers[1].mlp
        hook = module.register_forward_hook(
            lambda m, a, out, to=captured: to.append((out[0] if isinstance(out, tuple) else out)[0, -1])
        )
        with torch.inference_mode():
            chat.lm.model(torch.tensor([[*prompt, *ids, 2]]), use_cache=False)
        hook.remove()
        rows.append(captured[0].numpy())
    said = [row for row, text in zip(rows, ends.texts, strict=True) if text.strip()]
    assert found["verdict"]["score"] == pytest.approx(slow_uncertainty(np.array(said, np.float64), 1e-3), abs=1e-3)
    assert found["verdict"]["position"] == 0
    # The same state gives the same samples and the same verdict.
    again = step(nodes, step(nodes, {"question": QUESTION}, "begin", "generate"), "monitor")
    assert again["verdict"]["score"] == found["verdict"]["score"]


def test_a_remote_model_is_rejected_when_the_graph_is_built():
    with pytest.raises(SignalUnavailableError, match="needs end_states, which ScriptedChatModel cannot give"):
        create_dynamic_rag(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="seakr")
    with pytest.raises(SignalUnavailableError, match="end_states"):
        create_dynamic_rag(ScriptedChatModel(replies=[]), WatchedRetriever(), evidence_selector=LeastUncertain())


def test_the_preset_has_the_published_settings():
    settings = get_preset("seakr").settings
    trigger, spec = settings["trigger"], settings["trigger"].sampling
    assert (trigger.threshold, trigger.alpha) == (-6.0, 1e-3)
    assert (spec.samples, spec.temperature, spec.top_k, spec.top_p, spec.max_tokens) == (20, 1.0, 50, 0.9, 100)
    assert (spec.state, get_preset("seakr", bundle="reference").settings["trigger"].sampling.state) == ("layer", "mlp")
    assert settings["evidence_selector"].sampling == spec
    assert settings["final_answer"] == SurerAnswer(spec)
    assert get_preset("seakr").exemplars == 8


def test_costs_are_added_up():
    assert total_cost([{"a": 1, "b": 2}, {"a": 3}]) == {"a": 4, "b": 2}


def test_the_embedded_model_is_more_certain_of_facts_in_its_prompt(embedded_lm):
    """Uses a model with real language: samples agree if a passage contains the answer."""
    chat = LocalChatModel.from_causal_lm(embedded_lm)
    from langgraph_dynrag.generators.local import LocalGenerator
    from langgraph_dynrag.steps.task import draft_task

    said = "The ferry Patient Anna was built by the shipwright Odile Marrash in 1911."
    nodes = create_nodes(chat, WatchedRetriever(), preset="seakr", prompt=PROMPT)
    settings = nodes.monitor.settings
    generator = settings.generator
    assert isinstance(generator, LocalGenerator)
    spec = SampleSpec(samples=5, max_tokens=12)
    found = {}
    for name, evidence in (("without", []), ("with", [passage(said, {}, "anna")])):
        state = {
            "question": "Who built the ferry Patient Anna?",
            "evidence": evidence,
            "text": "The ferry Patient Anna was built by",
            "token_ids": None,
        }
        ends = generator.sample_ends(draft_task(state, settings), spec, seed=1)
        assert ends.cost["sequences"] == 5
        found[name] = uncertainty(ends)
    assert found["with"] < found["without"]


@pytest.mark.slow
def test_the_preset_answers_on_the_embedded_model_with_few_samples(embedded_lm):
    chat = LocalChatModel.from_causal_lm(embedded_lm)
    documents = [
        Document("The ferry Patient Anna was built by the shipwright Odile Marrash.", id="anna"),
        Document("The river Tamsin crosses Brannoch.", id="tamsin"),
    ]
    spec = SampleSpec(samples=3, max_tokens=16)
    graph = create_dynamic_rag(
        chat,
        WatchedRetriever(give=documents),
        preset="seakr",
        trigger=SelfAwareUncertainty(-4.0, spec),
        evidence_selector=LeastUncertain(spec),
        final_answer=SurerAnswer(spec),
        budgets=Budgets(retrievals=1, tokens=40),
    )
    out = graph.invoke({"question": "Who built the ferry Patient Anna?"})
    (final,) = [e for e in out["trace"] if e["type"] == "final_answer"]
    assert [c["basis"] for c in final["candidates"]] == ["rationales", "documents"]
    assert "Odile Marrash" in final["candidates"][1]["short_answer"]
    assert out["short_answer"]
    assert Trace.from_state(out).counts["sampled_sequences"] >= 3
