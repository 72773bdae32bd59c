"""Calibration with a real (tiny) model, and with a scripted model whose results are worked out by hand."""

import json

import numpy as np
import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, Trace, calibrate, create_dynamic_rag, get_preset
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.generators.local import LocalGenerator
from langgraph_dynrag.presets.file import PresetFile
from langgraph_dynrag.triggers import RIND, AnyOf, Entropy, SelfAwareUncertainty, TokenProbability
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.calibration.bridges import PLAIN, bridges
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.tiny import tiny_llama_of_lines, tiny_tokenizer

QUESTIONS = [f"Who built bridge {i} in the capital?" for i in range(4)]
SHORT = {
    "prompt": AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=()),
    "budgets": Budgets(tokens=16),
    "lookahead": 16,
}


REFERENCE = get_preset("dragin", bundle="reference")


@pytest.fixture(scope="module")
def chat():
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama_of_lines(), tiny_tokenizer(), name="tiny"))


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("dragin", {}),
        ("etc", {}),
        (REFERENCE, {}),
        ("etc", {"trigger": Entropy(1.0)}),
        ("flare", {"trigger": TokenProbability(tokens="new_names"), "initial_retrieval": False}),
    ],
)
@pytest.mark.parametrize("per", ["sentence", "question"])
def test_real_graphs_fire_as_often_as_predicted(chat, preset, options, per):
    """The graph's trigger only reports its verdicts, so that the text stays as it was drafted."""
    found = calibrate(chat, questions=QUESTIONS, rate=0.5, per=per, preset=preset, **options, **SHORT)
    changes = {**options, **SHORT, "trigger": _Silent(found.trigger)}
    graph = create_dynamic_rag(chat, WatchedRetriever(), preset=preset, **changes)
    fired = []
    for question in QUESTIONS:
        verdicts = [e for e in graph.invoke({"question": question})["trace"] if e["type"] == "verdict"]
        fired.append([e["reason"] == "fired" for e in verdicts])
    sentences = [f for group in fired for f in group]
    assert found.pieces == len(sentences)
    assert (len(sentences) > len(QUESTIONS)) is (preset is not REFERENCE)  # the reference form drafts to the end
    assert found.chosen.sentence_rate == pytest.approx(np.mean(sentences))
    assert found.chosen.question_rate == pytest.approx(np.mean([any(g) for g in fired]))
    assert found.interval[0] <= found.threshold <= found.interval[1]


def test_calibrating_seakr_samples_once_per_sentence_and_can_be_saved(tiny_lm, tmp_path, monkeypatch):
    chat = LocalChatModel.from_causal_lm(tiny_lm)
    drawn, sample = [], LocalGenerator.sample_ends

    def watched(self, task, spec, seed):
        drawn.append(spec)
        return sample(self, task, spec, seed)

    monkeypatch.setattr(LocalGenerator, "sample_ends", watched)
    trigger = SelfAwareUncertainty(-6, SampleSpec(samples=3, max_tokens=4))
    found = calibrate(chat, questions=QUESTIONS[:3], rate=0.5, preset="seakr", trigger=trigger, **SHORT)
    assert len(drawn) == found.pieces
    path = found.save(tmp_path / "p.json")
    assert PresetFile.read(path).trigger == found.trigger
    create_dynamic_rag(chat, WatchedRetriever(), preset=path, **SHORT)


class _Silent:
    """The calibrated trigger, which reports whether it would fire but never retrieves."""

    def __init__(self, trigger):
        self.inner = trigger
        self.needs, self.unit = trigger.needs, trigger.unit

    def before(self, question):
        return None

    def judge(self, view):
        from langgraph_dynrag.drafts.draft import Verdict

        return Verdict(False, "fired" if self.inner.judge(view).retrieve else "did not")


def test_worked_example_of_a_rate():
    model, retriever, asked = bridges()
    found = calibrate(model, retriever, questions=asked, rate=0.5, **PLAIN)
    # The lowest probability in each sentence is 0.2, 0.4, 0.6 or 0.8; in the certain ones 0.95, of the other words.
    assert found.threshold == pytest.approx(0.7)
    assert found.trigger == TokenProbability(found.threshold)
    assert (found.chosen.sentence_rate, found.chosen.question_rate) == (0.5, 0.5)
    assert (found.questions, found.pieces) == (6, 6)
    assert len(model.calls) == 6  # each draft was written once
    assert retriever.queries == []


def test_worked_example_of_the_best_f1_within_a_cost():
    """A wrong answer has an F1 of 2/3 ("it was" of three words), so each needed search adds 1/3 of a sixth."""
    model, retriever, asked = bridges()
    asked = [{**a, "answers": ["It was Wray"]} for a in asked]
    found = calibrate(model, retriever, questions=asked, cost=0.5, points=7, **PLAIN)
    # Seven points spread over the rates: 0, 1, 2, 3, 4 and 6 of six; 5 is impossible, the two certain ones are equal.
    searches = [p.searches for p in found.points]
    scores = [p.f1 for p in found.points]
    assert searches == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 1])
    assert scores == pytest.approx([1 - (4 - n) / 18 for n in (0, 1, 2, 3, 4, 4)])
    assert found.threshold == pytest.approx(0.7)
    assert found.chosen.searches == pytest.approx(0.5)
    assert 0 < found.stability <= 1
    assert found.wanted == {"cost": 0.5}
    # Without a limit the best F1 is that of four searches, not of six, which cost more and add nothing.
    model, retriever, _ = bridges()
    free = calibrate(model, retriever, questions=asked, cost=9, points=7, **PLAIN)
    assert free.chosen.searches == pytest.approx(4 / 6)


def test_the_graph_only_runs_for_questions_in_which_the_threshold_fires():
    model, retriever, asked = bridges()
    calibrate(model, retriever, questions=asked, cost=9, points=2, **PLAIN)
    # Six drafts; at the first threshold nothing fires, at the second everything does: two drafts for each question.
    assert len(model.calls) == 6 + 12
    assert len(retriever.queries) == 6


def test_the_graph_uses_the_threshold_of_the_preset_file(chat, tmp_path):
    found = calibrate(chat, questions=QUESTIONS, rate=0.3, preset="dragin", **SHORT)
    file = found.save(tmp_path / "mine.json")
    graph = create_dynamic_rag(chat, WatchedRetriever(), preset=str(file), **SHORT)
    verdicts = [e for e in graph.invoke({"question": QUESTIONS[0]})["trace"] if e["type"] == "verdict"]
    assert {v["threshold"] for v in verdicts if "threshold" in v} == {found.threshold}
    kept = json.loads(file.read_text("utf-8"))["calibration"]
    assert kept["threshold"] == found.threshold
    assert kept["wanted"] == {"rate": 0.3, "per": "sentence"}


def test_a_method_that_begins_with_a_search_drafts_with_its_results():
    model, retriever, asked = bridges()
    found = calibrate(model, retriever, questions=asked, rate=0.5, **{**PLAIN, "initial_retrieval": True})
    assert len(retriever.queries) == 6
    assert all("Fact" in call[-1].content for call in model.calls)
    assert found.pieces == 6
    with pytest.raises(ConfigurationError, match="begins with a search; pass the retriever"):
        calibrate(model, questions=asked, rate=0.5)
    with pytest.raises(ConfigurationError, match="makes at least 1 before it writes"):
        calibrate(model, retriever, questions=asked, cost=0.5, **{**PLAIN, "initial_retrieval": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither of rate and cost"),
        ({"rate": 0.5, "cost": 1}, "both of rate and cost"),
        ({"rate": 1.5}, "rate is 1.5; a share from 0 to 1"),
        ({"cost": -1}, "cost is -1"),
        ({"rate": 0.5, "per": "token"}, "per is 'token'; known: 'sentence', 'question'"),
        ({"cost": 1, "points": 1}, "points is 1"),
        ({"rate": 0.5, "samples": 3}, "samples is 3"),
        ({"rate": 0.5, "questions": ["One?"]}, "there is 1 question"),
        ({"rate": 0.5, "questions": ["One?", 3]}, "3 is not a question"),
        ({"rate": 0.5, "questions": ["One?", {"question": "Two?", "answers": 3}]}, "the answers of 'Two\\?' are 3"),
        ({"cost": 1, "questions": ["One?", "Two?"]}, "2 of 2 questions have none, the first: 'One\\?'"),
        ({"rate": 0.5, "preset": "fixed_sentence"}, "EverySentence\\(\\) has no threshold"),
        ({"rate": 0.5, "trigger": AnyOf(TokenProbability(), Entropy())}, "has no threshold; its parts may"),
        ({"rate": 0.5, "preset": "mine.json"}, "calibrate starts from a published method"),
        ({"rate": 0.5, "preset": "flair"}, "there is no preset 'flair'"),
        ({"rate": 0.5, "trigger": RIND(0.1)}, "needs attention"),
    ],
)
def test_invalid_options_are_explained_before_the_model_is_called(options, message):
    model, retriever, asked = bridges()
    with pytest.raises(ConfigurationError, match=message):
        calibrate(model, retriever, **{"questions": asked, **options})
    assert model.calls == []


def test_calibrating_for_a_cost_needs_a_retriever():
    model, _, asked = bridges()
    with pytest.raises(ConfigurationError, match="pass the retriever"):
        calibrate(model, questions=asked, cost=1)


def test_a_warning_is_logged_for_few_questions(caplog):
    model, retriever, asked = bridges()
    calibrate(model, retriever, questions=asked, rate=0.5, **PLAIN)
    assert "6 questions leave the threshold very uncertain" in caplog.text


def test_the_calibrated_graph_retrieves_where_its_threshold_fires():
    model, retriever, asked = bridges()
    found = calibrate(model, retriever, questions=asked, rate=0.5, **PLAIN)
    graph = create_dynamic_rag(model, retriever, preset="flare", trigger=found.trigger, **PLAIN)
    runs = [Trace.from_state(graph.invoke({"question": a["question"]})) for a in asked]
    assert [len(r.retrievals) for r in runs] == [1, 1, 1, 0, 0, 0]
