"""A vote of the passages on a closed set of answers (Asai et al. 2023, appendix B.2).

If a question has few possible answers (true or false, A to D), the continuation with the highest score f does not win
by itself. Instead, f is summed over the continuations, one per passage, that give the same answer, and the answer with
the largest sum wins. Pure functions; no framework, no model.

The paper sums over the answers of the task and matches the written text with them; the published code sums over each
distinct string written. Both are implemented.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from typing_extensions import TypedDict

from rag_backbone.errors import ConfigurationError

Answers = tuple[str, ...] | Literal["written"]
"""The answers of a task, or each distinct string written."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes for one answer."""

    answer: str
    """Spelled as in the task or, for written answers, as it was written first."""
    score: float
    """Sum of the scores of the continuations that give it."""
    voters: tuple[int, ...]
    """Indices of those continuations."""


class TallyState(TypedDict):
    """The votes for one answer, with the ids of the passages."""

    answer: str
    score: float
    passages: list[str | None]


class BallotState(TypedDict):
    """All votes, as plain data."""

    winner: str | None
    sums: list[TallyState]
    blank: list[str | None]


@dataclass(frozen=True, slots=True)
class Ballot:
    """All votes, largest sum first; ties go to the answer that was voted for first."""

    tallies: tuple[Tally, ...]
    blank: tuple[int, ...]
    """Indices of continuations that give none of the answers."""

    @property
    def winner(self) -> Tally | None:
        """The answer with the largest sum; None if no continuation gives any."""
        return self.tallies[0] if self.tallies else None

    def to_state(self, passages: Sequence[str | None]) -> BallotState:
        """Return plain data for the trace.

        Args:
            passages: The passage id of each continuation.
        """
        return {
            "winner": None if self.winner is None else self.winner.answer,
            "sums": [
                {"answer": t.answer, "score": t.score, "passages": [passages[i] for i in t.voters]}
                for t in self.tallies
            ],
            "blank": [passages[i] for i in self.blank],
        }


def count_votes(texts: Sequence[str], scores: Sequence[float], answers: Answers) -> Ballot:
    """Sum the scores of continuations by the answer that they give.

    Args:
        texts: The continuations' answers, in the order of their passages.
        scores: Their scores f.
        answers: The answers that can be voted for.
    """
    names: dict[str, str] = {}
    voters: dict[str, list[int]] = {}
    blank = []
    for i, text in enumerate(texts):
        given = text.strip() if answers == "written" else answer_given(text, answers)
        key = normalised_ballot(given or "")
        if given is None or not key:
            blank.append(i)
            continue
        names.setdefault(key, given)
        voters.setdefault(key, []).append(i)
    tallies = [Tally(names[key], math.fsum(scores[i] for i in who), tuple(who)) for key, who in voters.items()]
    return Ballot(tuple(sorted(tallies, key=lambda t: -t.score)), tuple(blank))


def answer_given(text: str, answers: Sequence[str]) -> str | None:
    """Return the answer that a text is or starts with, the longest if there are several; None if there is none.

    Case and punctuation are ignored: `(A)`, `A.` and `A: granite` give `A`. An answer of a single letter must be
    followed by punctuation or nothing: `A river` does not give `A`.
    """
    text = _folded(text)
    found = [answer for answer in answers if _beginning(answer).match(text)]
    return max(found, key=lambda answer: len(normalised_ballot(answer)), default=None)


def normalised_ballot(text: str) -> str:
    """Return the text without case and punctuation, white space collapsed. Articles stay, as `A` may be an answer."""
    return " ".join(re.sub(r"[\W_]+", " ", _folded(text)).split())


def checked_answers(answers: object) -> Answers | None:
    """Return the answers of a task as a tuple.

    Raises:
        ConfigurationError: If they are not strings, fewer than two, blank, or differ only in case and punctuation.
    """
    if answers is None or answers == "written":
        return answers
    if isinstance(answers, str) or not isinstance(answers, Sequence) or not all(isinstance(a, str) for a in answers):
        raise ConfigurationError(
            f"answers is {answers!r}; give the answers of the task, such as ('yes', 'no'), or 'written' to vote on "
            "whatever was written"
        )
    if len(answers) < 2:
        raise ConfigurationError(f"answers is {answers!r}; a vote needs at least two answers to choose from")
    seen: dict[str, str] = {}
    for answer in answers:
        key = normalised_ballot(answer)
        if not key:
            raise ConfigurationError(f"answers has {answer!r}, which contains no letter and no digit")
        if key in seen:
            raise ConfigurationError(
                f"answers has {seen[key]!r} and {answer!r}, which differ only in case and punctuation"
            )
        seen[key] = answer
    return tuple(answers)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _beginning(answer: str) -> re.Pattern[str]:
    words = normalised_ballot(answer).split()
    alone = len(words) == 1 and len(words[0]) == 1
    behind = r"(?=[\W_]*\Z|[^\w\s])" if alone else r"(?!\w)"
    return re.compile(r"[\W_]*" + r"[\W_]+".join(map(re.escape, words)) + behind)
