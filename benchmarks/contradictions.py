"""Create pairs of passages that contradict each other on one fact: a real one, and a copy with one value swapped.

The value is a question's answer. A number is replaced by another of similar size; any other value by the answer to
another question of the same kind in the same file, with a similar form (as many words, with capitals and numerals in
the same places). It is replaced everywhere in the passage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.single_hop import Fact, by_passage

WORDINGS = (
    "{}",
    "Please answer this question: {}",
    "I have been asked this and would like to know it for certain. {}",
    "{} Say what you know.",
)
"""Wordings of a question; the first is the plain one."""
_NUMBER = re.compile(r"\d+(?:,\d{3})*")
_NUMERALS = frozenset(
    [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "sixty",
        "seventy",
        "eighty",
        "ninety",
        "hundred",
        "thousand",
        "million",
        "billion",
    ]
)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A passage, an altered copy that contradicts it, and a question on which they differ."""

    fact: Fact
    """The question, with the true passage."""
    altered: str
    """The altered passage."""
    true: str
    """The value in the true passage, as written there."""
    false: str
    """The value in the altered passage."""
    agreed: Fact | None
    """Another question, on which both passages agree."""


def contradictions(facts: Sequence[Fact], *, count: int, seed: int) -> list[Contradiction]:
    """Draw contradictions by the seed, at most one for each passage.

    Facts whose answer does not occur in the passage, or for which no replacement is available, are skipped.
    """
    rng = random.Random(seed)
    grouped = by_passage(facts)
    values = sorted({(f.answers[0], _asks(f.question)) for f in facts})
    found: list[Contradiction] = []
    for passage in rng.sample(list(grouped), len(grouped)):
        about = grouped[passage]
        for fact in rng.sample(about, len(about)):
            made = _swapped(fact, about, values, rng)
            if made is not None:
                found.append(made)
                break
        if len(found) == count:
            break
    return found


def _swapped(
    fact: Fact, about: Sequence[Fact], values: Sequence[tuple[str, str]], rng: random.Random
) -> Contradiction | None:
    true = next((a for a in fact.answers if _whole(a).search(fact.passage)), None)
    if true is None or _whole(true).search(fact.question):
        return None
    false = _another(true, fact, values, rng)
    if false is None:
        return None
    altered = _whole(true).sub(lambda _: false, fact.passage)
    agreed = next((f for f in about if f is not fact and _unchanged(f, true, altered)), None)
    return Contradiction(fact, altered, true, false, agreed)


def _unchanged(fact: Fact, true: str, altered: str) -> bool:
    """Return whether question and answers do not contain the swapped value, and the altered passage still has one."""
    told = (fact.question, *fact.answers)
    return not any(_whole(true).search(t) for t in told) and any(_whole(a).search(altered) for a in fact.answers)


def _another(value: str, fact: Fact, values: Sequence[tuple[str, str]], rng: random.Random) -> str | None:
    if _NUMBER.search(value):
        other = _NUMBER.sub(lambda match: _other_number(match[0], rng), value)
        return None if other == value or _whole(other).search(fact.passage) else other
    alike = [
        v
        for v, asks in values
        if asks == _asks(fact.question)
        and v != value
        and _shape(v) == _shape(value)
        and not _whole(v).search(f"{fact.passage} {fact.question}")
    ]
    return rng.choice(alike) if alike else None


def _other_number(text: str, rng: random.Random) -> str:
    """Return a different number of similar size: years change by up to 60, other numbers by up to a half."""
    number = int(text.replace(",", ""))
    grouped = "," in text
    spread = 60 if 1000 <= number <= 2100 and not grouped else max(number // 2, 3)
    other = number + rng.choice([-1, 1]) * rng.randint(max(spread // 4, 1), spread)
    other = abs(other) or number + 1
    return f"{other:,}" if grouped else str(other)


def _shape(value: str) -> tuple[str, ...]:
    """Return the kind of each word except articles: a numeral, capitalised, or neither."""
    words = [w for w in value.split() if w.lower() not in ("a", "an", "the")]
    return tuple("9" if w.lower() in _NUMERALS or w[0].isdigit() else "A" if w[0].isupper() else "a" for w in words)


def _asks(question: str) -> str:
    """Return the question word: who, where, when, how, ..."""
    known = ("who", "whom", "whose", "where", "when", "which", "how", "why", "what")
    return next((w for w in re.findall(r"[a-z]+", question.lower()) if w in known), "")


def _whole(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
