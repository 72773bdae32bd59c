"""The passages' vote on a closed set of answers, if a selection has one. Used when continuations are selected."""

from __future__ import annotations

from dataclasses import dataclass, replace

from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.reflection.base import SegmentSelection
from langgraph_dynrag.reflection.beam import Beam
from langgraph_dynrag.reflection.vote import BallotState, count_votes
from langgraph_dynrag.short_answer import answer_start, short_answer


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote."""

    beam: Beam
    """The beam with only the continuations that give the winning answer; with all of them if there is no winner."""
    answer: str | None
    """The winning answer; None if no continuation gives any of the answers."""
    record: BallotState


def vote(beam: Beam, selection: SegmentSelection, prompt: AnswerPrompt) -> Vote | None:
    """Have the beam's continuations vote. Return None if the selection does not ask for a vote."""
    if selection.answers is None:
        return None
    voters = beam.eligible(selection.unsupported)
    texts = [_answer(c.segment.draft.text, prompt) for c in voters]
    ballot = count_votes(texts, [c.segment.score.total for c in voters], selection.answers)
    record = ballot.to_state([None if (p := c.segment.passage) is None else p["id"] for c in voters])
    winner = ballot.winner
    if winner is None:
        return Vote(beam, None, record)
    return Vote(replace(beam, candidates=tuple(voters[i] for i in winner.voters)), winner.answer, record)


def _answer(text: str, prompt: AnswerPrompt) -> str:
    """Return the short answer, or the whole text if it has none."""
    phrase = prompt.answer_phrase
    if phrase is None or answer_start(text, phrase) is None:
        return text.strip()
    return short_answer(text, phrase, prompt.answer_end)
