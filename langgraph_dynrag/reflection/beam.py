"""The beam over segments: hypotheses of an answer, what continues them, and which are kept (section 3.3).

Pure bookkeeping; no framework, no model. A hypothesis' score is the mean of its segments' scores. The paper leaves open
how segments add up, and the published code multiplies them; the mean ranks answers of one length as their sum does,
and makes those that ended early comparable with those that did not. Of candidates with the same text only the best one
is kept, or the beam would soon hold one answer several times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from typing_extensions import TypedDict

from langgraph_dynrag.drafts.draft import Draft, DraftState
from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.reflection.scores import (
    Critique,
    CritiqueState,
    Probabilities,
    SegmentScore,
    SegmentScoreState,
    plain,
)

Unsupported = Literal["keep", "drop"]
"""Candidates that their passage does not support: ranked with the others, or left out while there are others (the
paper's hard constraint)."""


class SegmentState(TypedDict):
    """A segment as plain data."""

    draft: DraftState
    token_ids: list[int]
    passage: Passage | None
    critique: CritiqueState
    score: SegmentScoreState
    ended: bool


class DecisionState(TypedDict):
    """A decision as plain data."""

    retrieve: bool
    keep: bool
    reason: str
    score: float | None
    threshold: float | None
    probabilities: dict[str, float] | None
    query: str | None


class HypothesisState(TypedDict):
    """A hypothesis as plain data."""

    segments: list[SegmentState]
    decision: DecisionState | None
    stopped: Literal["tokens", "segments"] | None


class CandidateState(TypedDict):
    """A candidate as plain data."""

    parent: int
    segment: SegmentState


class BeamState(TypedDict):
    """A beam as plain data."""

    hypotheses: list[HypothesisState]
    judgements: list[dict[str, float] | None]
    candidates: list[CandidateState]
    accepted: int


@dataclass(frozen=True)
class Segment:
    """A piece of an answer, as a model continued a hypothesis with at most one passage."""

    draft: Draft
    """Its visible tokens."""
    token_ids: tuple[int, ...]
    """Everything that it adds to the model's context: marks, passage, text and reflection tokens."""
    passage: Passage | None
    critique: Critique
    score: SegmentScore
    ended: bool
    """Whether the model ended its answer with it."""

    def to_state(self) -> SegmentState:
        """Plain data."""
        return {
            "draft": self.draft.to_state(),
            "token_ids": list(self.token_ids),
            "passage": self.passage,
            "critique": self.critique.to_state(),
            "score": self.score.to_state(),
            "ended": self.ended,
        }

    @classmethod
    def from_state(cls, value: SegmentState) -> Segment:
        """The segment that `to_state` wrote."""
        return cls(
            Draft.from_state(value["draft"]),
            tuple(value["token_ids"]),
            value["passage"],
            Critique(**value["critique"]),
            SegmentScore(**value["score"]),
            value["ended"],
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """How a hypothesis goes on."""

    retrieve: bool
    """With passages that are searched for now."""
    keep: bool = False
    """With the passage of the segment before."""
    reason: str = ""
    score: float | None = None
    threshold: float | None = None
    probabilities: Probabilities | None = None
    query: str | None = None

    def to_state(self) -> DecisionState:
        """Plain data."""
        return {
            "retrieve": self.retrieve,
            "keep": self.keep,
            "reason": self.reason,
            "score": self.score,
            "threshold": self.threshold,
            "probabilities": plain(self.probabilities),
            "query": self.query,
        }


@dataclass(frozen=True)
class Hypothesis:
    """An answer so far."""

    segments: tuple[Segment, ...] = ()
    decision: Decision | None = None
    """How it goes on; None until that is decided."""
    stopped: Literal["tokens", "segments"] | None = None
    """The limit that forbids another segment, if any."""

    @property
    def text(self) -> str:
        """What it says."""
        return "".join(s.draft.text for s in self.segments)

    @property
    def tokens(self) -> int:
        """Tokens of its text."""
        return sum(len(s.draft) for s in self.segments)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The model's context after the prompt."""
        return tuple(i for s in self.segments for i in s.token_ids)

    @property
    def score(self) -> float:
        """The mean of its segments' scores; 0 without any."""
        return math.fsum(s.score.total for s in self.segments) / len(self.segments) if self.segments else 0.0

    @property
    def passage(self) -> Passage | None:
        """What its last segment was written with."""
        return self.segments[-1].passage if self.segments else None

    @property
    def ended(self) -> bool:
        """Whether the model ended it, or a limit did."""
        return self.stopped is not None or (bool(self.segments) and self.segments[-1].ended)

    def continued(self, segment: Segment) -> Hypothesis:
        """This hypothesis with one segment more, undecided."""
        return Hypothesis((*self.segments, segment))

    def to_state(self) -> HypothesisState:
        """Plain data."""
        decision = None if self.decision is None else self.decision.to_state()
        segments = [s.to_state() for s in self.segments]
        return {"segments": segments, "decision": decision, "stopped": self.stopped}

    @classmethod
    def from_state(cls, value: HypothesisState) -> Hypothesis:
        """The hypothesis that `to_state` wrote."""
        decision = value["decision"]
        segments = tuple(Segment.from_state(s) for s in value["segments"])
        return cls(segments, None if decision is None else Decision(**decision), value["stopped"])


@dataclass(frozen=True)
class SegmentCandidate:
    """A hypothesis that might be continued, and with what."""

    parent: int
    """Which of the beam's hypotheses."""
    segment: Segment


@dataclass(frozen=True)
class Beam:
    """All hypotheses, and what the nodes hand to each other about them."""

    hypotheses: tuple[Hypothesis, ...] = (Hypothesis(),)
    judgements: tuple[Probabilities | None, ...] = ()
    """For each hypothesis, whether it needs a passage next; None: not asked. Empty: not asked of any."""
    candidates: tuple[SegmentCandidate, ...] = ()
    accepted: int = 0
    """Leading segments that all hypotheses share and that the answer has already."""

    @property
    def undecided(self) -> tuple[int, ...]:
        """Open hypotheses of which it is not decided how they go on."""
        return tuple(i for i, h in enumerate(self.hypotheses) if not h.ended and h.decision is None)

    def eligible(self, unsupported: Unsupported) -> tuple[SegmentCandidate, ...]:
        """The candidates that may take the place of what they continue."""
        if unsupported == "drop":
            return tuple(c for c in self.candidates if not c.segment.critique.unsupported) or self.candidates
        return self.candidates

    def advanced(self, width: int, unsupported: Unsupported) -> Beam:
        """The beam after its candidates took the place of what they continue."""
        ended = [h for h in self.hypotheses if h.ended]
        grown = [self.hypotheses[c.parent].continued(c.segment) for c in self.eligible(unsupported)]
        return Beam(best_hypotheses(grown + ended, width), accepted=self.accepted)

    def limited(self, tokens: int, segments: int) -> Beam:
        """The beam with every open hypothesis stopped that has as many tokens or segments."""
        return replace(self, hypotheses=tuple(_limited(h, tokens, segments) for h in self.hypotheses))

    def decided(self, decisions: Mapping[int, Decision]) -> Beam:
        """The beam with decisions for some hypotheses."""
        known = enumerate(self.hypotheses)
        made = tuple(replace(h, decision=decisions[i]) if i in decisions else h for i, h in known)
        return replace(self, hypotheses=made, judgements=())

    @property
    def certain(self) -> tuple[Segment, ...]:
        """Leading segments that all hypotheses share."""
        first, *others = (h.segments for h in self.hypotheses)
        n = 0
        while n < len(first) and all(len(o) > n and o[n] == first[n] for o in others):
            n += 1
        return first[:n]

    def to_state(self) -> BeamState:
        """Plain data, as kept in the graph's state."""
        return {
            "hypotheses": [h.to_state() for h in self.hypotheses],
            "judgements": [plain(p) for p in self.judgements],
            "candidates": [{"parent": c.parent, "segment": c.segment.to_state()} for c in self.candidates],
            "accepted": self.accepted,
        }

    @classmethod
    def from_state(cls, value: BeamState | None) -> Beam:
        """The beam of a state; a single empty hypothesis if there is none."""
        if not value:
            return cls()
        return cls(
            tuple(Hypothesis.from_state(h) for h in value["hypotheses"]),
            tuple(value["judgements"]),
            tuple(SegmentCandidate(c["parent"], Segment.from_state(c["segment"])) for c in value["candidates"]),
            value["accepted"],
        )


def best_hypotheses(hypotheses: Iterable[Hypothesis], width: int) -> tuple[Hypothesis, ...]:
    """The `width` hypotheses of the highest scores, best first, each text once; of equal ones the earlier."""
    kept: list[Hypothesis] = []
    for h in _ranked(hypotheses):
        if len(kept) < width and all(" ".join(h.text.split()) != " ".join(k.text.split()) for k in kept):
            kept.append(h)
    return tuple(kept)


def _limited(h: Hypothesis, tokens: int, segments: int) -> Hypothesis:
    if h.ended or (h.tokens < tokens and len(h.segments) < segments):
        return h
    return replace(h, stopped="tokens" if h.tokens >= tokens else "segments")


def _ranked(hypotheses: Iterable[Hypothesis]) -> Sequence[Hypothesis]:
    return sorted(hypotheses, key=lambda h: -h.score)
