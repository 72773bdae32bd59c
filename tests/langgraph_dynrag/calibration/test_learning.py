"""Learning a trigger: a scripted model whose labels are known, policies, the preset file, and what is refused."""

import json

import numpy as np
import pytest
from langchain_core.documents import Document

from langgraph_dynrag import Budgets, LocalChatModel, Trace, calibrate, create_dynamic_rag
from langgraph_dynrag.calibration.folds import TooFewPointsError
from langgraph_dynrag.calibration.learning import one_per_question, split
from langgraph_dynrag.calibration.training import LabelledPoint, train
from langgraph_dynrag.presets.file import PresetFile
from langgraph_dynrag.triggers import LearnedTrigger
from langgraph_dynrag.triggers.features import FEATURES
from langgraph_dynrag.triggers.policy import Policy
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.calibration.bridges import PLAIN, Bridges
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.tiny import tiny_llama_of_lines, tiny_tokenizer

pytest.importorskip("sklearn")


def bridges(count=60, wrong=2 / 3):
    """Return a model that is wrong without its passage about a share of the bridges, and then less sure."""
    rng = np.random.default_rng(0)
    doubts = [float(rng.uniform(0.2, 0.9)) if i < wrong * count else 1.0 for i in range(count)]
    model = Bridges(doubts=doubts)
    asked = [{"question": f"Who built bridge {i}?", "answers": ["Wray"]} for i in range(count)]
    return model, WatchedRetriever(give=[Document("Fact. It was built by Wray.", id="f")]), asked


def test_worked_example_with_a_rate(tmp_path):
    """40 of 60 sentences are wrong and become right with the passage; the least probability tells them apart."""
    model, retriever, asked = bridges()
    found = calibrate(model, retriever, questions=asked, trigger="learned", rate=0.5, **PLAIN)
    assert isinstance(found.trigger, LearnedTrigger)
    assert (found.learned.points, found.learned.needed, found.pieces) == (60, 40, 60)
    assert found.learned.auroc == pytest.approx(1)
    assert found.learned.calibration_error < 0.1
    assert "least_logprob" in found.learned.features
    assert "rarest_new_name" not in found.learned.features  # this retriever does not count words
    assert found.trigger.policy == Policy("rate", 0.5, points=60)
    assert found.wanted == {"rate": 0.5, "per": "sentence"}
    told = str(found)
    assert "searches at 50% of the sentences" in told
    assert "AUROC 1.00" in told
    path = found.save(tmp_path / "p.json")
    assert PresetFile.read(path).trigger == found.trigger
    assert json.loads(path.read_text("utf-8"))["calibration"]["learned"]["needed"] == 40
    graph = create_dynamic_rag(model, retriever, preset=path, **PLAIN)
    for asking in (asked[0], asked[39]):
        trace = graph.invoke({"question": asking["question"]})["trace"]
        reason = next(e["reason"] for e in trace if e["type"] == "verdict" and e.get("score") is not None)
        assert reason.startswith("p ")
        assert "searches at 50%" in reason


def test_worked_example_with_a_bound(tmp_path):
    model, retriever, asked = bridges(120, wrong=0.8)
    found = calibrate(model, retriever, questions=asked, trigger="learned", missed=0.1, confidence=0.9, **PLAIN)
    policy = found.trigger.policy
    assert (policy.goal, policy.value, policy.confidence) == ("missed", 0.1, 0.9)
    assert 22 <= policy.points <= 40  # needed ones of 40 held-out questions
    assert found.learned.points == 80  # the others
    assert found.wanted == {"missed": 0.1, "confidence": 0.9}
    assert found.chosen.sentence_rate >= 0.6
    graph = create_dynamic_rag(model, retriever, preset="flare", trigger=found.trigger, **PLAIN)
    answered = [graph.invoke({"question": a["question"]}) for a in asked[:96]]
    missed = [out for out in answered if not any(e["type"] == "retrieval" for e in out["trace"])]
    assert len(missed) <= 0.1 * 96
    with pytest.raises(TooFewPointsError, match="needs 45 held-out questions"):
        calibrate(*bridges(120)[:2], questions=asked, trigger="learned", missed=0.05, confidence=0.9, **PLAIN)


def test_worked_example_of_giving_up(tmp_path):
    """The first search finds nothing; 80 of 120 sentences are then wrong, and the rest are right and surer."""
    model, _, asked = bridges(120)
    finds = {True: [Document("Fact. It was built by Wray.", id="f")], False: [Document("It is old.", id="o")]}
    retriever = WatchedRetriever(give=lambda query: finds["Wray" in query])
    options = {**PLAIN, "initial_retrieval": True, "budgets": Budgets(retrievals=2)}
    goal = {"trigger": "learned", "rate": 0.9, "given_up": 0.2, "confidence": 0.8}
    found = calibrate(model, retriever, questions=asked, **goal, **options)
    trigger = found.trigger
    assert (trigger.policy.goal, trigger.policy.points) == ("rate", 80)  # the others are held out
    assert (trigger.abstain_policy.goal, trigger.abstain_policy.value) == ("given_up", 0.2)
    assert 8 <= trigger.abstain_policy.points <= 20
    assert found.wanted == {"rate": 0.9, "per": "sentence", "given_up": 0.2, "confidence": 0.8}
    assert f"gives up from p {trigger.abstain:.3g} on: gives at most 20% of the right sentences up" in str(found)
    path = found.save(tmp_path / "p.json")
    assert PresetFile.read(path).trigger == trigger
    graph = create_dynamic_rag(model, retriever, preset=path, **options)
    answers = [graph.invoke({"question": a["question"]})["short_answer"] for a in asked]
    assert "I do not know." not in answers[80:]
    assert answers[:80].count("I do not know.") > 60  # wrong, and as unsure as no right one is
    with pytest.raises(TooFewPointsError, match="given_up=0.06 .* needs 27 held-out questions with a right sentence"):
        calibrate(model, retriever, questions=asked, **{**goal, "given_up": 0.06}, **options)
    calls = len(model.calls)
    with pytest.raises(TooFewPointsError, match="given_up=0.02 .* needs 80 held-out questions, and there are 40"):
        calibrate(model, retriever, questions=asked, **{**goal, "given_up": 0.02}, **options)
    assert len(model.calls) == calls  # nothing was drafted


def test_a_graph_on_a_local_model_runs_with_a_trained_trigger():
    names = [n for n, f in FEATURES.items() if not f.index]
    rng = np.random.default_rng(1)
    points = [
        LabelledPoint(i // 3, {n: float(rng.normal()) for n in names}, bool(rng.random() < 0.4)) for i in range(120)
    ]
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama_of_lines(), tiny_tokenizer(), name="tiny"))
    for kind in ("logistic", "trees"):
        trigger = LearnedTrigger(train(points, names, kind=kind).model, 0.4, Policy("rate", 0.4))
        options = {"prompt": PLAIN["prompt"], "budgets": Budgets(tokens=24), "lookahead": 16}
        graph = create_dynamic_rag(chat, WatchedRetriever(), preset="dragin", trigger=trigger, **options)
        trace = Trace.from_state(graph.invoke({"question": "Who built the bridge?"}))
        assert "(searches at 40% of the sentences)" in str(trace)


def test_labels_of_a_model_that_is_never_right_teach_nothing(chat):
    options = {"prompt": PLAIN["prompt"], "budgets": Budgets(tokens=12), "lookahead": 8}
    asked = [{"question": f"Who built bridge {i}?", "answers": ["Wray"]} for i in range(3)]
    with pytest.raises(TooFewPointsError, match="at 0 of which a retrieval was needed; at least 50"):
        calibrate(chat, WatchedRetriever(), questions=asked, trigger="learned", rate=0.3, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither of rate and missed"),
        ({"rate": 0.3, "missed": 0.1}, "both of rate and missed"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"missed": 0}, "missed is 0; a number above 0"),
        ({"missed": 0.1, "confidence": 1}, "confidence is 1"),
        ({"rate": 0.3, "given_up": 1}, "given_up is 1; a number above 0"),
        ({"rate": 0.3, "trigger": None, "given_up": 0.1}, "given_up is a bound for a learned"),
        ({"cost": 2}, "cost is not supported"),
        ({"rate": 0.3, "per": "question"}, "per is not supported"),
        ({"rate": 0.3, "learner": "forest"}, "learner is 'forest'; known"),
        ({"rate": 0.3, "trigger": "learnt"}, "trigger is 'learnt'"),
        ({"rate": 0.3, "trigger": None, "missed": 0.1}, "trigger='learned'"),
        ({"rate": 0.3, "preset": "self_rag"}, "self_rag writes one continuation"),
        ({"rate": 0.3, "questions": ["Who?", "When?"]}, "2 of 2 questions have none"),
    ],
)
def test_bad_options_are_refused_before_anything_is_drafted(options, message):
    model, retriever, asked = bridges(4)
    with pytest.raises(ConfigurationError, match=message):
        calibrate(model, retriever, **{"questions": asked, "trigger": "learned", "prompt": PLAIN["prompt"], **options})
    assert model.calls == []
    with pytest.raises(ConfigurationError, match="pass the retriever"):
        calibrate(model, questions=asked, trigger="learned", rate=0.3)


def test_questions_are_held_out_whole_and_give_one_point_each():
    points = [LabelledPoint(q, {}, needed) for q in range(9) for needed in (True, True, False)]
    learning, held_out = split(points, 1 / 3, 0)
    assert (len(learning), len(held_out)) == (18, 9)
    assert not {p.question for p in learning} & {p.question for p in held_out}
    probabilities, needed = [p.question + i % 3 / 10 for i, p in enumerate(held_out)], [p.needed for p in held_out]
    found = one_per_question(held_out, probabilities, needed, 0)
    assert [int(p) for p in found] == sorted({p.question for p in held_out})
    assert all(round(p % 1, 1) in (0, 0.1) for p in found)  # never the one that needed none
    with pytest.raises(TooFewPointsError):
        split(points[:3], 1 / 3, 0)
