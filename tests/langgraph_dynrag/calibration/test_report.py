"""The result of a calibration."""

import json

from langgraph_dynrag import calibrate
from tests.langgraph_dynrag.calibration.bridges import PLAIN, bridges


def test_the_report_is_readable_and_serialisable():
    model, retriever, asked = bridges()
    text = str(calibrate(model, retriever, questions=asked, cost=9, points=3, **PLAIN))
    assert text.startswith("flare with Bridges: TokenProbability(theta=")
    assert "found on 6 questions with 6 pieces" in text
    assert "searches per question; best in" in text
    assert json.dumps(calibrate(model, retriever, questions=asked, rate=0.5, **PLAIN).to_dict())
