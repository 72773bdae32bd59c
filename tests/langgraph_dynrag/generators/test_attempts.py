"""A draft over several attempts: what failed attempts wrote is kept, and counted only once."""

import logging

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage

from langgraph_dynrag.drafts.token_alignment import Seam
from langgraph_dynrag.generators.attempts import Attempts
from tests.langgraph_dynrag.generators.tasks import task_of


class Asked:
    """A generator that records the parts it is asked for."""

    def __init__(self, opens_reasoning=False):
        self.opens_reasoning = opens_reasoning
        self.parts = []

    def note_reasoning(self, opens):
        self.opens_reasoning = opens

    def continued(self, task):
        self.parts.append((task.carried.text, task.limit))
        return (
            [HumanMessage(task.carried.text or "begin")],
            {"part": len(self.parts)},
            Seam(task.carried.text, "continues"),
        )


def write(work, *pieces, error=None):
    """Make one attempt, which may fail after some pieces."""
    with work.watched():
        work.begin()
        for piece in pieces:
            if work.push(AIMessageChunk(piece)):
                return
        if error is not None:
            raise error


def test_the_next_attempt_continues_what_a_failed_one_wrote(caplog):
    asked = Asked()
    work = Attempts(asked, task_of(opens=False), None)
    assert not work.continues
    with pytest.raises(OSError, match="gone"), caplog.at_level(logging.WARNING):
        write(work, "It was", " Joan", error=OSError("gone"))
    assert "draft attempt 1 failed (OSError: gone)" in caplog.text
    assert work.continues
    write(work, " Pike.")
    assert asked.parts == [("", 20), ("It was Joan", 18)]
    assert (work.messages[0].content, work.extra) == ("It was Joan", {"part": 2})
    result = work.result()
    assert result.draft.pieces == ("It was", " Joan", " Pike.")
    assert (result.cost["retries"], result.failures) == (1, ("OSError",))


def test_tokens_are_shown_once():
    shown = []
    work = Attempts(Asked(), task_of(opens=False), lambda text, *_: shown.append(text))
    with pytest.raises(OSError, match="gone"):
        write(work, "It was", error=OSError("gone"))
    write(work, " Joan.")
    assert "".join(shown) == "It was Joan."


def test_an_error_after_the_last_allowed_token_is_no_failure_of_the_draft():
    work = Attempts(Asked(), task_of(opens=False, limit=2), None)
    write(work, "It", " was", error=OSError("gone"))
    result = work.result()
    assert (result.draft.text, result.draft.ended, result.failures) == ("It was", "limit", ("OSError",))


def test_a_single_attempt_reports_no_retries():
    work = Attempts(Asked(), task_of(opens=False), None)
    write(work, "It was Joan.")
    result = work.result()
    assert "retries" not in result.cost
    assert result.failures == ()
