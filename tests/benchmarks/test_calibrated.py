"""The benchmark of calibrated methods: its methods from a file of thresholds, and what is as good and cheaper."""

import argparse
import json
import math
from dataclasses import asdict

import pytest

from benchmarks.calibrated import (
    as_good_and_cheaper,
    main,
    methods_of,
    report_of,
    rows_of,
    thresholds_by_rate,
    thresholds_in,
)
from benchmarks.datasets import load_questions
from benchmarks.draft_points import PointWriter
from benchmarks.runs import load_chat
from langgraph_dynrag.triggers import ETC, RIND, LearnedTrigger, TokenProbability
from langgraph_dynrag.triggers.learned_model import LearnedModel
from rag_backbone.errors import ConfigurationError

MODEL = LearnedModel("logistic", ("least_logprob",), (0.0,), (1.0,), 0.0, weights=(-1.0,))


@pytest.fixture
def triggers(tmp_path, model):
    rates = [
        {"rate": r, "learned": r, "least_probability": r / 2, "least_new_name_probability": r / 4, "rind": r, "etc": r}
        for r in (0.3, 0.6)
    ]
    path = tmp_path / "learned_trigger.json"
    about = {"model": model.name, "model_of_trigger": asdict(MODEL), "thresholds": rates}
    path.write_text(json.dumps(about))
    return path


def test_methods_have_the_thresholds_of_the_file_and_begin_without_a_search(triggers, model):
    known = thresholds_in(triggers, str(model))
    found = methods_of(known, [0.6])
    assert found == {
        "least, 0.6 searches": ("flare", {"trigger": TokenProbability(0.3), "initial_retrieval": False}),
        "new names, 0.6 searches": (
            "flare",
            {"trigger": TokenProbability(0.15, tokens="new_names"), "initial_retrieval": False},
        ),
        "learned, 0.6 searches": ("flare", {"trigger": LearnedTrigger(MODEL, 0.6), "initial_retrieval": False}),
        "dragin, 0.6 searches": ("dragin", {"trigger": RIND(0.6)}),
        "etc, 0.6 searches": ("etc", {"trigger": ETC(0.6)}),
    }
    assert list(methods_of(known, [0.6], ["etc", "learn"])) == ["etc, 0.6 searches", "learned, 0.6 searches"]
    with pytest.raises(ConfigurationError, match="name begins with 'seakr'; there are dragin, 0.6"):
        methods_of(known, [0.6], ["etc", "seakr"])
    with pytest.raises(ConfigurationError, match="is of the model .*; run benchmarks.learned_trigger on other"):
        thresholds_in(triggers, "other")
    with pytest.raises(ConfigurationError, match=r"no thresholds for the rate 0.5; there are some for \[0.3, 0.6\]"):
        methods_of(known, [0.5])


@pytest.fixture
def data(tmp_path):
    question = {
        "_id": "a",
        "question": "When was the ferry of Vold built?",
        "answer": "1973",
        "type": "bridge",
        "supporting_facts": [["Vold", 0]],
        "context": [["Vold", ["The ferry of Vold was built in 1973."]], ["Pell", ["Pell is a town."]]],
    }
    path = tmp_path / "some_dev.json"
    path.write_text(json.dumps([question, {**question, "_id": "b", "question": "When was the ferry of Pell built?"}]))
    return path


def test_thresholds_by_rate_are_those_at_which_as_many_sentences_search(data, model, monkeypatch):
    args = argparse.Namespace(
        rate_from=[data], rate_questions=2, seed=0, dtype="float32", sessions=2, rates=[0.5, 1.0, 100.0], seakr=False
    )
    chat = load_chat(str(model), "float32")
    found = thresholds_by_rate(chat, args)
    writer = PointWriter(chat, samples=0, signals_only=True)
    views = [view for question in load_questions(data) for view in writer.unaided(question)]
    assert "".join(v.unit.text for v in views if v.question.endswith("Vold built?")) == views_text(writer, data)
    least = sorted(min(view.unit.logprobs) for view in views)
    assert [row["least_probability"] for row in found] == pytest.approx(
        [math.exp(least[i]) for i in (0, min(2, len(least)) - 1, len(least) - 1)], rel=1e-4
    )
    made = methods_of(found, [1.0])
    assert set(made) == {"least, 1 searches", "new names, 1 searches"}
    assert made["least, 1 searches"][1]["trigger"] == TokenProbability(found[1]["least_probability"])
    monkeypatch.setattr(PointWriter, "unaided", None)  # drafts are kept
    assert thresholds_by_rate(chat, args) == found


def test_seakr_searches_at_as_many_sentences_as_its_rate_says(data, model):
    args = argparse.Namespace(
        rate_from=[data], rate_questions=2, seed=0, dtype="float32", sessions=1, rates=[0.5, 100.0], seakr=True
    )
    chat = load_chat(str(model), "float32")
    found = thresholds_by_rate(chat, args)
    writer = PointWriter(chat, samples=0, signals_only=True)
    views = [view for question in load_questions(data) for view in writer.unaided(question)]
    for row, searches in zip(found, (1, len(views)), strict=True):
        _, changes = methods_of([row], [row["rate"]])[f"seakr of 5, {row['rate']:g} searches"]
        assert sum(changes["trigger"].judge(view).retrieve for view in views) == searches


def views_text(writer, data):
    """The draft of the first question."""
    return writer.write(load_questions(data)[0])["unaided"]


def record(f1, searches):
    return {"f1": f1, "em": 0.0, "recall": 0.5, "retrievals": searches, "generated_tokens": 9}


def test_as_good_and_cheaper_needs_few_searches_and_hardly_less_f1():
    one = [record(0.5, 1)] * 20
    rows = rows_of(
        {
            "single": one,
            "least, 0.6 searches": [record(0.49, 0.5)] * 20,
            "new names, 0.6 searches": [record(0.5, 0.7)] * 20,  # too many searches
            "learned, 0.6 searches": [record(1.0, 0)] * 10 + [record(0, 0)] * 10,  # as good, but by chance
        },
        seed=0,
    )
    assert [row["f1_over_single"] for row in rows] == pytest.approx([0, -0.01, 0, 0])
    assert as_good_and_cheaper(rows) == ["least, 0.6 searches"]
    about = {"model": "tiny", "dtype": "float32", "k": 3, "seed": 0, "complete": False}
    report = report_of({**about, "data": {"some": rows}, "as_good_and_cheaper": {"some": []}})
    assert "at most 0.6 searches a question: none." in report
    assert "run the same command again" in report


@pytest.mark.slow
def test_a_run_asks_every_method_and_continues(triggers, data, model, tmp_path):
    given = ["--model", str(model), "--dtype", "float32", "--data", str(data), "--triggers", str(triggers)]
    main([*given, "--methods", "--rates", "0.6", "--max-minutes", "0"])
    main([*given, "--methods", "--rates", "0.6", "--out", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "calibrated.json").read_text())
    assert figures["complete"]
    assert [row["n"] for row in figures["data"]["some_dev"]] == [2] * 7
