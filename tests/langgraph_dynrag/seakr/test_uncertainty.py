"""SeaKR: the formula by hand, and its trigger, query and evidence selector on a real (tiny, random) model."""

import math
import re

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from langchain_core.messages import AIMessage

from langgraph_dynrag import (
    AnswerPrompt,
    Budgets,
    LocalChatModel,
    Trace,
    create_dynamic_rag,
    create_nodes,
    get_preset,
)
from langgraph_dynrag.drafts.draft import Draft, DraftView, Verdict
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.queries import KnownWords
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.seakr.uncertainty import log_gram_determinant, total_cost, uncertainty
from langgraph_dynrag.triggers import SelfAwareUncertainty
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever
from tests.tiny import tiny_llama, tiny_tokenizer

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


def test_the_layer_is_a_fraction_of_the_depth():
    spec = SampleSpec()
    assert [spec.layer_of(n) for n in (32, 30, 24, 16, 3, 1)] == [15, 14, 11, 7, 1, 0]
    assert SampleSpec(layer=0.999).layer_of(32) == 31


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SampleSpec(samples=0), "samples is 0; at least 1"),
        (lambda: SampleSpec(max_tokens=0), "max_tokens is 0"),
        (lambda: SampleSpec(temperature=0), "temperature is 0; it must be positive, otherwise all samples"),
        (lambda: SampleSpec(top_p=1.5), "top_p is 1.5"),
        (lambda: SampleSpec(top_k=-1), "top_k is -1"),
        (lambda: SampleSpec(layer=1.0), "layer is 1.0; a fraction"),
        (lambda: SampleSpec(state="attention"), "'attention'; known: 'layer', 'mlp'"),
        (lambda: SelfAwareUncertainty(math.inf), "threshold is inf"),
        (lambda: SelfAwareUncertainty(alpha=0), "alpha is 0"),
        (lambda: LeastUncertain(alpha=0), "alpha is 0"),
        (lambda: KnownWords(2), "max_doubt is 2"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# ---------------------------------------------------------------------- decisions


def view(text="It was Joan.", probabilities=None, accepted="", question=QUESTION, **changes):
    pieces = _pieces(text)
    logprobs = tuple(math.log((probabilities or {}).get(p.strip(), 0.95)) for p in pieces)
    draft = Draft(tuple(pieces), logprobs)
    return DraftView(question, accepted, draft, len(draft), **changes)


def _pieces(text):
    return re.findall(r"\s*\w+|\s*[^\w\s]", text)


def sampled(states, texts=None, **cost):
    return SampledEnds(np.asarray(states, float), tuple(texts or ["It was."] * len(states)), cost)


def test_the_trigger_compares_uncertainty_with_its_threshold_and_flags_the_whole_sentence():
    ends = sampled([[1.0, -1.0], [1.0, -1.0]], sequences=2, tokens=9)
    u = math.log(5) / 2
    for threshold, retrieve in ((u - 1e-6, True), (u + 1e-6, False)):
        verdict = SelfAwareUncertainty(threshold, alpha=1.0).judge(view(sample_ends=lambda spec: ends))
        assert verdict.retrieve is retrieve
        assert verdict.score == pytest.approx(u)
        assert verdict.position == (0 if retrieve else None)
        assert verdict.cost == {"sequences": 2, "tokens": 9}
    assert Verdict.from_state(verdict.to_state()) == verdict


def test_samples_that_are_all_empty_are_uncertain_at_any_threshold():
    ends = sampled([[1.0, -1.0]] * 3, ["", " ", "\n"])
    verdict = SelfAwareUncertainty(1e6).judge(view(sample_ends=lambda spec: ends))
    assert (verdict.retrieve, verdict.score, verdict.reason) == (True, None, "every sample was empty")


def test_a_blank_sentence_is_uncertain_without_sampling():
    def never(spec):
        raise AssertionError

    blank = DraftView(QUESTION, "", Draft((" \n",), (-0.1,)), 1, sample_ends=never)
    assert SelfAwareUncertainty().judge(blank).retrieve


@pytest.mark.parametrize(
    ("text", "doubted", "accepted", "query"),
    [
        # "Joan" was doubted; "mason" was not; "bridge" was, but it occurs in the question.
        ("The mason Joan built the bridge.", {"Joan": 0.5, "bridge": 0.5}, "", "mason built bridge"),
        # A doubt of 0.1 does not count yet; more does.
        ("Its mason was Wray.", {"mason": 0.9, "Wray": 0.89}, "", "mason"),
        # The previous sentence makes "Wray" known; the one before that does not.
        ("Then Wray left Hallin.", {"Wray": 0.1, "Hallin": 0.1, "left": 0.1}, "Hallin is old. It was Wray.", "Wray"),
        # Words that announce an answer are no subject. Nothing is left, so the question's content words are used.
        ("So the answer is Joan.", {"Joan": 0.2}, "", "built bridge capital"),
    ],
)
def test_the_query_consists_of_the_known_parts_of_the_sentence(text, doubted, accepted, query):
    assert KnownWords().plan(view(text, doubted, accepted), Verdict(True, "")).queries == (query,)


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


@pytest.fixture
def chat():
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))


def step(nodes, state, *names):
    for name in names:
        update = getattr(nodes, name)(state)
        trace = update.pop("trace", [])
        state = {**state, **update, "trace": [*state.get("trace", []), *getattr(trace, "value", trace)]}
    return state


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


@pytest.mark.parametrize("state", ["layer", "mlp"])
def test_the_score_matches_plain_forward_passes_over_the_samples(chat, state, monkeypatch):
    spec = SampleSpec(samples=4, max_tokens=8, state=state)
    drawn = []
    engine = chat.lm.engine
    monkeypatch.setattr(engine, "end_states", lambda r, real=engine.end_states: drawn.append(real(r)) or drawn[-1])
    nodes = create_nodes(chat, WatchedRetriever(), **options(trigger=SelfAwareUncertainty(-6, spec)))
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


def test_a_remote_model_is_rejected_when_the_graph_is_built():
    with pytest.raises(SignalUnavailableError, match="needs end_states, which ScriptedChatModel cannot give"):
        create_dynamic_rag(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="seakr")
    with pytest.raises(SignalUnavailableError, match="end_states"):
        create_dynamic_rag(ScriptedChatModel(replies=[]), WatchedRetriever(), evidence_selector=LeastUncertain())


def test_an_invalid_selector_is_rejected(chat):
    with pytest.raises(ConfigurationError, match="evidence_selector is 3 .*an EvidenceSelector or None is needed"):
        create_dynamic_rag(chat, WatchedRetriever(), evidence_selector=3)


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
