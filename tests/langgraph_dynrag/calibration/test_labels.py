"""Labels by plain texts; `tests/benchmarks/test_fact_labels.py` has the worked examples by paragraphs."""

import pytest

from langgraph_dynrag.calibration.labels import judge_sentence

TEXTS = ["Bridge. The bridge was built by Aldous Wray in 1907."]


@pytest.mark.parametrize(
    ("sentence", "before", "phrase", "label"),
    [
        ("It was built by Joan Pike.", "", None, "wrong"),
        ("It was built in 1907.", "", None, "right"),
        ("It was built in 1907.", "In 1907 it stood.", None, "nothing new"),
        ("It was built by Wray.", "", None, "right"),
        ("It is old.", "", None, "nothing new"),
        ("So the answer is Pike.", "", "So the answer is", "wrong"),
        ("So the answer is Wray.", "Wray built it.", "So the answer is", "right"),
        ("So the answer is Wray.", "Wray built it.", None, "nothing new"),  # a prompt without such a phrase
    ],
)
def test_worked_examples(sentence, before, phrase, label):
    found = judge_sentence(sentence, before, "Who built it?", answers=["Wray"], supporting=TEXTS, phrase=phrase)
    assert found.label == label
