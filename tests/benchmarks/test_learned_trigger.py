"""The benchmark of learned triggers: what is trained on what, and its figures on made-up points."""

import json
from itertools import chain

import numpy as np
import pytest
from langchain_core.documents import Document

from benchmarks.further_features import FURTHER, READ_AGAIN, STATES_ALONE, further_features
from benchmarks.learned_trigger import (
    RATES,
    WITHOUT_INDEX,
    data_set,
    error_by_chance,
    fitted,
    judge_all,
    main,
    report_of,
    thresholds,
)
from langgraph_dynrag.calibration.folds import TooFewPointsError
from langgraph_dynrag.calibration.training import LabelledPoint
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers.features import FEATURES
from langgraph_dynrag.triggers.probe import DEPTHS

pytest.importorskip("sklearn")


def made_up(questions, seed, telling="least_logprob"):
    """Points whose need shows in one feature."""
    rng = np.random.default_rng(seed)
    found = []
    for question in range(questions):
        for needed in (rng.random(3) < 0.5).tolist():
            values = dict.fromkeys((*FEATURES, *chain(*FURTHER.values(), *READ_AGAIN.values())), 0.0)
            values["new_names"] = 1.0
            values["content_words"] = rng.random()  # says nothing
            values[telling] = float(rng.normal() - 2 * needed)
            found.append((LabelledPoint(question, values, needed), f"q{question}"))
    return found


def test_a_file_is_judged_by_triggers_trained_with_and_without_its_data_set():
    """Elsewhere another feature tells, so that only the trigger trained on the same data set ranks its points."""
    training = {"near_train": made_up(60, 0), "far_train": made_up(60, 1, "sentence_number")}
    found = judge_all({"near_dev": made_up(60, 2)}, training, 0)
    area = {row["trigger"]: row["auc"] for row in found["judged"]["near_dev"]}
    assert area["learned, logistic"] > 0.8
    assert area["least token probability"] > 0.8
    assert area["learned elsewhere, logistic"] < 0.6
    assert set(found["judged"]) == {"near_dev"}
    assert data_set("near_train steps") == data_set("near_dev") == "near"


def test_the_report_states_differences_to_the_least_token_probability_and_the_calibration():
    training = {"near_train": made_up(30, 0), "far_train": made_up(30, 1)}
    found = judge_all({"near_dev": made_up(15, 2), "far_dev": made_up(15, 3)}, training, 0)
    rows = {row["trigger"]: row for row in found["judged"]["all"]}
    assert rows["least token probability"]["over_least_interval"] == (0, 0)
    assert rows["learned, logistic"]["n"] == 90
    assert rows["learned, logistic"]["calibration_error"] < 0.2
    assert "calibration_error" not in rows["least token probability"]
    counts = {"near_train": {"questions": 60, "points": 180, "needed": 90}}
    about = {"model": "tiny", "dtype": "float32", "seed": 0, "training": counts, "points": counts, "complete": False}
    report = report_of({**about, **found})
    assert f"learned elsewhere, logistic, {WITHOUT_INDEX}" in report
    assert "| `least_logprob` |" in report
    assert "Stopped before all questions were drafted" in report


def test_a_further_feature_that_tells_is_seen_to_add_something():
    """Elsewhere as here the trend of entropy tells, which the trigger itself does not have."""
    training = {"near_train": made_up(60, 0), "far_train": made_up(60, 1, "etc")}
    found = judge_all({"near_dev": made_up(60, 2, "etc")}, training, 0)
    area = {row["trigger"]: row["auc"] for row in found["judged"]["near_dev"]}
    assert area["learned elsewhere, logistic, with RIND and ETC"] > 0.8
    assert area["learned elsewhere, logistic, with the query's scores"] < 0.65
    assert area["learned elsewhere, logistic"] < 0.65


def test_hidden_states_that_tell_are_seen_to_add_something():
    """The states tell everywhere, and the trigger's own features only at home."""
    files = {"near_train": made_up(40, 0), "far_train": made_up(40, 1, "sentence_number"), "near_dev": made_up(40, 2)}
    rng = np.random.default_rng(0)
    states = {}
    for name, points in files.items():
        states[name] = rng.normal(size=(len(points), len(DEPTHS), 4)).astype(np.float32)
        states[name][:, 0, 0] += [2.0 * p.needed for p, _ in points]
    dev = {"near_dev": files.pop("near_dev")}
    area = {row["trigger"]: row["auc"] for row in judge_all(dev, files, 0, states)["judged"]["near_dev"]}
    assert area[STATES_ALONE] > 0.8
    assert area["learned elsewhere, logistic, with hidden states"] > 0.8
    assert area["learned elsewhere, trees, with hidden states"] > area["learned elsewhere, trees"] + 0.1
    assert area["learned elsewhere, logistic, with the margin"] < 0.65
    assert area["learned elsewhere, logistic"] < 0.65


def test_thresholds_fire_at_the_wanted_number_of_points():
    training = {"near_train": made_up(60, 0)}  # three points a question
    values = np.random.default_rng(5).normal(size=180)
    for value, (point, _) in zip(values.tolist(), training["near_train"], strict=True):
        point.values["rind"] = value
    found = thresholds(training, fitted(training, "logistic", 0))
    assert [row["rate"] for row in found] == list(RATES)
    for row in found:
        assert sum(p.values["rind"] >= row["rind"] for p, _ in training["near_train"]) == round(row["rate"] * 60)


def test_further_features_come_from_the_record_and_from_a_search_for_the_sentence():
    texts = ["The ferry of Vold was built in 1901.", "The ferry of Pell is blue."]
    index = BM25Retriever.from_documents([Document(t) for t in texts])
    triggers = {"RIND, paper (DRAGIN)": {"score": 0.25}, "trend of entropy, paper (ETC)": {"score": None}}
    found = further_features({"sentence": "The ferry of Vold was built in 1905.", "triggers": triggers}, index)
    assert (found["rind"], found["etc"]) == (0.25, None)
    assert found["query_score"] > found["query_gap"] > 0
    nothing = further_features({"sentence": "Unbekannt.", "triggers": triggers}, index)
    assert (nothing["query_score"], nothing["query_gap"]) == (0, 0)


def test_probabilities_that_are_exactly_right_have_an_error_by_chance_that_falls_with_the_points():
    rng = np.random.default_rng(0)
    few, many = (error_by_chance(rng.random(count).tolist(), 0) for count in (100, 10_000))
    assert 0.08 < few < 0.16
    assert many < 0.02
    assert error_by_chance([0.0, 1.0], 0) == 0


def test_questions_of_different_files_are_different_ones():
    one = [(p, q) for p, q in made_up(30, 0)]
    assert fitted({"a": one, "b": one}, "logistic", 0).points == 180


@pytest.mark.slow
def test_a_run_whose_drafts_never_needed_retrieval_says_so(model, tmp_path):
    def file(name, towns):
        content = [
            {
                "_id": f"{name}{i}",
                "question": f"When was the ferry of {town} built?",
                "answer": str(1900 + i),
                "type": "bridge",
                "supporting_facts": [[town, 0]],
                "context": [[town, [f"The ferry of {town} was built in {1900 + i}."]]],
            }
            for i, town in enumerate(towns)
        ]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    data = file("some_dev", ["Vold", "Pell"])
    training = [file(n, [f"{n} {i}" for i in range(12)]) for n in ("some_train", "other_train")]
    with pytest.raises(TooFewPointsError):  # the tiny model states nothing that is right with the paragraphs
        main(["--model", str(model), "--dtype", "float32", "--data", str(data), "--train", *map(str, training)])
