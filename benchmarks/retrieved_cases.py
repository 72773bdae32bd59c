"""Questions with their retrieved passages, and what each way of choosing among them chooses."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.parametric_runs import Asked
from benchmarks.single_hop import Fact, by_passage
from llamaindex_prag.placement.ask_router import Answer
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.lexical_router import LexicalRouter, standardised
from rag_backbone.metrics import f1

WAYS = ("bm25", "minilm", "lexical", "texts", "always", "unsure", "ask", "lexical+ask")
PLACES = ("first", "middle", "last")


@dataclass(frozen=True, slots=True)
class Case:
    """A question with its candidates, best by BM25 first, and what is known of each."""

    fact: Fact
    passages: tuple[str, ...]
    bm25: tuple[float, ...]
    minilm: tuple[float, ...]
    answers: tuple[Answer, ...]
    sure: bool = False
    """Whether the base model is sure of its own answer."""

    def part(self, which: Sequence[int]) -> Case:
        """Return the case with some of its candidates."""
        return Case(
            self.fact,
            tuple(self.passages[i] for i in which),
            tuple(self.bm25[i] for i in which),
            tuple(self.minilm[i] for i in which),
            tuple(self.answers[i] for i in which),
            self.sure,
        )

    def best(self, k: int) -> Case:
        """Return the case with its k best candidates."""
        return self.part(range(min(k, len(self.passages))))

    def absent(self, k: int) -> Case:
        """Return the case with the k best candidates other than the right passage."""
        return self.part([i for i, p in enumerate(self.passages) if p != self.fact.passage][:k])

    @property
    def right(self) -> int | None:
        """Position of the right passage; None if it is not a candidate."""
        return self.passages.index(self.fact.passage) if self.fact.passage in self.passages else None

    def chosen(self, way: str) -> int | None:
        """Return the position of the candidate that a way of choosing chooses; None if no adapter acts."""
        if way in ("bm25", "minilm"):
            return int(np.argmax(self.bm25 if way == "bm25" else self.minilm))
        if way == "unsure" and self.sure:
            return None
        gains = np.array([a.gain for a in self.answers])
        if way == "ask":
            return int(gains.argmax())
        candidates = [Candidate(p, p, score=s) for p, s in zip(self.passages, self.minilm, strict=True)]
        found = LexicalRouter().scores(self.fact.question, candidates, [None] * len(candidates))
        if way in ("lexical", "texts") and found.refused:
            return None
        scores = np.array(found.scores)
        return int((scores + standardised(gains) if way == "lexical+ask" else scores).argmax())

    def without(self, way: str) -> Asked:
        """Return what is asked if no adapter acts: the question, with the candidates' texts by way of `texts`."""
        return Asked(self.fact.question, self.passages if way == "texts" else ())

    def f1(self, way: str, told: Mapping[Asked, float]) -> float:
        """Return the F1 of the chosen candidate's answer, or that of the base model, in `told`, if none is chosen."""
        at = self.chosen(way)
        return told[self.without(way)] if at is None else f1(self.answers[at].text, self.fact.answers)


def pooled(facts: Sequence[Fact], passages: int, questions: int) -> list[Fact]:
    """Return questions on `passages` passages of two subjects, taking turns so that each passage has about as many."""
    subjects: dict[str, list[str]] = {}
    for passage, of in by_passage(facts).items():
        subjects.setdefault(of[0].title, []).append(passage)
    each = passages // 2
    chosen = {p for title in [t for t, ps in subjects.items() if len(ps) >= each][:2] for p in subjects[title][:each]}
    grouped = [of for passage, of in by_passage(facts).items() if passage in chosen]
    turns = [of[turn] for turn in range(max(map(len, grouped), default=0)) for of in grouped if turn < len(of)]
    return turns[:questions]


def strangers(cases: Sequence[Case], k: int, seed: int) -> list[tuple[Case, list[str]]]:
    """Return each case with k passages about another subject, drawn by the seed; without cases that have fewer."""
    rng, titles = random.Random(seed), {c.fact.passage: c.fact.title for c in cases}
    others = {title: sorted(p for p, of in titles.items() if of != title) for title in titles.values()}
    return [(c, rng.sample(others[c.fact.title], k)) for c in cases if len(others[c.fact.title]) >= k]


def placed(case: Case, place: str) -> tuple[str, ...]:
    """Return the candidates with the right passage first, in the middle or last, the others as they were found."""
    others = [p for p in case.passages if p != case.fact.passage]
    at = {"first": 0, "middle": len(others) // 2, "last": len(others)}[place]
    return (*others[:at], case.fact.passage, *others[at:])
