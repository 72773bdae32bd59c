"""Warnings for the reader of an answer."""

from langgraph_dynrag.events.answer_warnings import answer_warnings


def test_failed_searches_are_counted_by_error():
    errors = ["ValueError: index lost", None, "OSError: disk full", "ValueError: index lost"]
    events = [{"type": "question"}, *({"type": "retrieval", "error": error} for error in errors)]
    assert answer_warnings(events) == [
        "2 of 4 searches failed, and the answer was written without them: ValueError: index lost",
        "1 of 4 searches failed, and the answer was written without them: OSError: disk full",
    ]


def test_a_warning_is_told_once_with_its_number():
    events = [{"type": "exemplar", "warning": "a"}, {"type": "own", "warning": "b"}, {"type": "own", "warning": "a"}]
    assert answer_warnings(events) == ["a (2 times)", "b"]


def test_failed_searches_come_before_other_warnings():
    events = [{"type": "not_text", "warning": "an image"}, {"type": "retrieval", "error": "OSError: gone"}]
    assert [w.split(" ")[0] for w in answer_warnings(iter(events))] == ["1", "an"]


def test_a_run_without_problems_has_no_warnings():
    assert answer_warnings([]) == []
    assert answer_warnings([{"type": "retrieval", "error": None}, {"type": "own", "warning": ""}]) == []
