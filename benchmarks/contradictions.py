"""Pairs of passages that contradict each other on one fact: a real one, and the same with one value swapped.

The value is a question's answer. A number becomes another one of its size, anything else the answer of another question
of the same file that looks like it (as many words, capitals and numerals in the same places) and answers the same kind
of question. It is swapped everywhere in the passage.
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
"""Ways to put one question; the first is the plain one."""
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
    """A passage, another one that says something else, and what to ask."""

    fact: Fact
    """Its passage is the one that is true."""
    altered: str
    """The passage that is not."""
    true: str
    """What the passage says, as it stands there."""
    false: str
    """What the altered one says."""
    agreed: Fact | None
    """Another question, about which both say the same."""


def contradictions(facts: Sequence[Fact], *, count: int, seed: int) -> list[Contradiction]:
    """At most one of each passage, drawn by the seed.

    Facts whose answer does not stand in the passage, or for which no other value is at hand, are passed over.
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
    """Whether the swapped value occurs in neither question nor answers, and the altered passage still answers it."""
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
    """Of the same size: years by up to sixty years, others by up to a half."""
    number = int(text.replace(",", ""))
    grouped = "," in text
    spread = 60 if 1000 <= number <= 2100 and not grouped else max(number // 2, 3)
    other = number + rng.choice([-1, 1]) * rng.randint(max(spread // 4, 1), spread)
    other = abs(other) or number + 1
    return f"{other:,}" if grouped else str(other)


def _shape(value: str) -> tuple[str, ...]:
    """Of each word, articles aside: whether it is a numeral, has a capital, or neither."""
    words = [w for w in value.split() if w.lower() not in ("a", "an", "the")]
    return tuple("9" if w.lower() in _NUMERALS or w[0].isdigit() else "A" if w[0].isupper() else "a" for w in words)


def _asks(question: str) -> str:
    """The question word: who, where, when, how, ..."""
    known = ("who", "whom", "whose", "where", "when", "which", "how", "why", "what")
    return next((w for w in re.findall(r"[a-z]+", question.lower()) if w in known), "")


def _whole(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
