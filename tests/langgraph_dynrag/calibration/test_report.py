"""The result of a calibration."""

import json

import pytest

from langgraph_dynrag import calibrate
from langgraph_dynrag.calibration import Calibration, Point
from langgraph_dynrag.presets.file import CalibratedFor, PresetFile
from langgraph_dynrag.triggers import TokenProbability
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.calibration.bridges import PLAIN, bridges


def test_the_report_is_readable_and_serialisable():
    model, retriever, asked = bridges()
    text = str(calibrate(model, retriever, questions=asked, cost=9, points=3, **PLAIN))
    assert text.startswith("flare with Bridges: TokenProbability(theta=")
    assert "found on 6 questions with 6 pieces" in text
    assert "searches per question; best in" in text
    assert json.dumps(calibrate(model, retriever, questions=asked, rate=0.5, **PLAIN).to_dict())


def found(**changes):
    chosen, other = Point(0.7, 0.5, 0.6), Point(0.9, 0.8, 0.9)
    given = {
        "trigger": TokenProbability(0.7),
        "threshold": 0.7,
        "interval": (0.6, 0.8),
        "wanted": {"rate": 0.5, "per": "question"},
        "chosen": chosen,
        "rate_interval": (0.4, 0.65),
        "points": (chosen, other),
        "questions": 20,
        "pieces": 40,
        "preset": "flare",
        "dataset": "2wikimultihopqa",
        "bundle": "paper",
        "calibrated_for": CalibratedFor("tiny", "f" * 64, "p" * 64),
    }
    return Calibration(**{**given, **changes})


def test_the_chosen_threshold_is_named_once():
    told = found()
    assert told.others == told.points[1:]
    assert str(told).splitlines() == [
        "flare with tiny: TokenProbability(theta=0.7, aggregate='min', tokens='all')",
        "  threshold 0.7 [0.6, 0.8]",
        "  found on 20 questions with 40 pieces of text",
        "  fires at 50% of the pieces, in 60% of the questions",
        "  rate of questions, 95 %: 40% to 65%",
        "           0.9:  80% of pieces,  90% of questions",
    ]
    plain = told.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert [p["threshold"] for p in plain["calibration"]["points"]] == [0.9]


def test_quality_is_shown_where_it_was_measured():
    best = Point(0.7, 0.5, 0.6, searches=1.5, f1=0.75, f1_interval=(0.5, 0.9))
    told = str(found(chosen=best, points=(best, Point(0.9, 0.8, 0.9, 3.0, 0.5)), stability=0.8, wanted={"cost": 2}))
    assert "  F1 0.750 [0.50, 0.90] with 1.50 searches per question; best in 80% of the bootstrap samples" in told
    assert told.endswith("3.00 searches, F1 0.500")
    assert "rate of sentences" in told


def test_a_saved_result_is_a_preset_file(tmp_path):
    path = found().save(tmp_path / "mine.json")
    read = PresetFile.read(path)
    assert (read.preset, read.trigger, read.calibrated_for) == ("flare", TokenProbability(0.7), found().calibrated_for)
    assert read.calibration == found().to_dict()["calibration"]
    with pytest.raises(ConfigurationError, match="ends in .json"):
        found().save(tmp_path / "mine.txt")
