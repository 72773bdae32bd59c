"""`dynprag calibrate`."""

import json

import pytest
from typer.testing import CliRunner

from langgraph_dynrag.calibration.folds import TooFewPointsError
from rag_backbone.cli import build_app
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.commands.command import QUESTION, run


def test_a_calibrated_threshold_is_saved_and_used(index, model, questions, tmp_path):
    out = tmp_path / "mine.json"
    common = ("--model", str(model), "--index", str(index))
    result = run("calibrate", str(questions), "--out", str(out), "--rate", "0.5", *common, "--preset", "dragin")
    assert result.stdout.startswith("dragin with ")
    assert f"--preset {out}" in result.stderr
    threshold = json.loads(out.read_text("utf-8"))["calibration"]["threshold"]
    told = json.loads(run("ask", QUESTION, *common, "--preset", str(out), "--max-tokens", "30", "--json").stdout)
    assert {e["threshold"] for e in told["trace"] if e.get("threshold") is not None} == {threshold}


def test_what_was_found_is_printed_even_if_it_cannot_be_saved(index, model, questions, tmp_path):
    (tmp_path / "p.json").mkdir()
    common = ("--model", str(model), "--index", str(index), "--rate", "0.5", "--preset", "dragin")
    result = CliRunner().invoke(build_app(), ["calibrate", str(questions), "--out", str(tmp_path / "p.json"), *common])
    assert isinstance(result.exception, OSError)
    assert result.stdout.startswith("dragin with ")


@pytest.mark.parametrize(
    ("given", "preset"),
    [
        (("--rate", "0.5", "--preset", "dragin"), "dragin"),
        (("--cost", "9", "--points", "3", "--retriever", "bm25"), "flare"),
    ],
)
def test_what_was_found_is_printed_as_json_and_no_threshold_is_named_twice(
    index, model, questions, tmp_path, given, preset
):
    options = ("--model", str(model), "--index", str(index), "-o", str(tmp_path / "p.json"), "--limit", "2", "--json")
    told = json.loads(run("calibrate", str(questions), *options, *given).stdout)
    found = told["calibration"]
    assert (told["preset"], found["questions"]) == (preset, 2)
    assert (found["chosen"]["f1"] is not None) is ("--cost" in given)
    thresholds = [found["chosen"]["threshold"], *(p["threshold"] for p in found["points"])]
    assert len(thresholds) == len(set(thresholds))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "0.5", "--out", "p.txt"), "ends in .json"),
        (("--out", "p.json"), "neither of rate and cost"),
        (("--rate", "2", "--out", "p.json"), "rate is 2"),
        (("--missed", "0.1", "--rate", "0.5", "--out", "p.json"), "trigger='learned'"),
        (("--given-up", "0.1", "--rate", "0.5", "--out", "p.json"), "given_up is a bound for a learned trigger"),
        (("--missed", "0.1", "--rate", "0.5", "--trigger", "learned", "--out", "p.json"), "both of rate and missed"),
    ],
)
def test_mistakes_of_a_calibration_are_explained(arguments, message, index, questions):
    with pytest.raises(ConfigurationError, match=message):
        run("calibrate", str(questions), "--index", str(index), *arguments)


def test_a_trigger_is_learned_from_the_index_unless_there_are_too_few_questions(index, model, questions, tmp_path):
    options = ("--model", str(model), "--index", str(index), "--retriever", "bm25", "--out", str(tmp_path / "p.json"))
    with pytest.raises(TooFewPointsError, match="a retrieval was needed"):
        run("calibrate", str(questions), *options, "--rate", "0.5", "--trigger", "learned", "--learner", "trees")
    assert not list(tmp_path.iterdir())


def test_only_methods_with_a_threshold_are_offered(questions):
    result = run("calibrate", str(questions), "--out", "p.json", "--preset", "single", code=2)
    assert "dragin" in result.output
    assert "fixed_sentence" not in result.output.split("dragin")[0]
