"""The beam over segments: hypotheses of an answer, their continuations, and which to keep (section 3.3).

Pure bookkeeping; no framework, no model. The score of a hypothesis is the mean of its segments' scores. The paper does
not say how to combine segments, and the published code multiplies them. The mean ranks answers of equal length like the
sum, and makes answers that ended early comparable with longer ones. Of candidates with the same text, only the best is
kept; otherwise the beam would soon hold the same answer several times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
"""Treatment of candidates that their passage does not support: rank them with the others, or leave them out as long as
there are others (the paper's hard constraint)."""


class SegmentState(TypedDict):
    """A segment, as plain data."""

    draft: DraftState
    token_ids: list[int]
    passage: Passage | None
    critique: CritiqueState
    score: SegmentScoreState
    ended: bool


class DecisionState(TypedDict):
    """A decision, as plain data."""

    retrieve: bool
    keep: bool
    reason: str
    score: float | None
    threshold: float | None
    probabilities: dict[str, float] | None
    query: str | None


class HypothesisState(TypedDict):
    """A hypothesis, as plain data."""

    segments: list[SegmentState]
    decision: DecisionState | None
    stopped: Literal["tokens", "segments"] | None


class CandidateState(TypedDict):
    """A candidate, as plain data."""

    parent: int
    segment: SegmentState


class BeamState(TypedDict):
    """A beam, as plain data."""

    hypotheses: list[HypothesisState]
    judgements: list[dict[str, float] | None]
    candidates: list[CandidateState]
    accepted: int


@dataclass(frozen=True)
class Segment:
    """A part of an answer: the model's continuation of a hypothesis with at most one passage."""

    draft: Draft
    """Its visible tokens."""
    token_ids: tuple[int, ...]
    """All tokens that it adds to the model's context: marks, passage, text and reflection tokens."""
    passage: Passage | None
    critique: Critique
    score: SegmentScore
    ended: bool
    """Whether the model ended its answer with this segment."""

    def to_state(self) -> SegmentState:
        """Return the segment as plain data."""
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
        """Rebuild a segment from the output of `to_state`."""
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
    """The decision on how a hypothesis continues."""

    retrieve: bool
    """Whether it continues with passages that are searched for now."""
    keep: bool = False
    """Whether it continues with the passage of the previous segment."""
    reason: str = ""
    score: float | None = None
    threshold: float | None = None
    probabilities: Probabilities | None = None
    query: str | None = None

    def to_state(self) -> DecisionState:
        """Return the decision as plain data."""
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
    """The decision on how it continues; None until that is decided."""
    stopped: Literal["tokens", "segments"] | None = None
    """The limit that forbids another segment, if any."""

    @property
    def text(self) -> str:
        """Its visible text."""
        return "".join(s.draft.text for s in self.segments)

    @property
    def tokens(self) -> int:
        """Number of tokens of its text."""
        return sum(len(s.draft) for s in self.segments)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The model's context after the prompt."""
        return tuple(i for s in self.segments for i in s.token_ids)

    @property
    def score(self) -> float:
        """The mean of its segments' scores; 0 without segments."""
        return math.fsum(s.score.total for s in self.segments) / len(self.segments) if self.segments else 0.0

    @property
    def passage(self) -> Passage | None:
        """The passage that its last segment was written with."""
        return self.segments[-1].passage if self.segments else None

    @property
    def ended(self) -> bool:
        """Whether the model or a limit ended it."""
        return self.stopped is not None or (bool(self.segments) and self.segments[-1].ended)

    def continued(self, segment: Segment) -> Hypothesis:
        """Return this hypothesis with one more segment, undecided."""
        return Hypothesis((*self.segments, segment))

    def to_state(self) -> HypothesisState:
        """Return the hypothesis as plain data."""
        decision = None if self.decision is None else self.decision.to_state()
        segments = [s.to_state() for s in self.segments]
        return {"segments": segments, "decision": decision, "stopped": self.stopped}

    @classmethod
    def from_state(cls, value: HypothesisState) -> Hypothesis:
        """Rebuild a hypothesis from the output of `to_state`."""
        decision = value["decision"]
        segments = tuple(Segment.from_state(s) for s in value["segments"])
        return cls(segments, None if decision is None else Decision(**decision), value["stopped"])


@dataclass(frozen=True)
class SegmentCandidate:
    """A possible continuation of a hypothesis."""

    parent: int
    """Index of the hypothesis that it continues."""
    segment: Segment


@dataclass(frozen=True)
class Beam:
    """All hypotheses, and the data about them that the nodes exchange."""

    hypotheses: tuple[Hypothesis, ...] = (Hypothesis(),)
    judgements: tuple[Probabilities | None, ...] = ()
    """Per hypothesis, the probabilities of whether it needs a passage next; None: not asked. Empty: none was asked."""
    candidates: tuple[SegmentCandidate, ...] = ()
    accepted: int = 0
    """Number of leading segments, shared by all hypotheses, that the answer already contains."""

    @property
    def undecided(self) -> tuple[int, ...]:
        """Indices of open hypotheses without a decision on how they continue."""
        return tuple(i for i, h in enumerate(self.hypotheses) if not h.ended and h.decision is None)

    def eligible(self, unsupported: Unsupported) -> tuple[SegmentCandidate, ...]:
        """Return the candidates that may replace the hypotheses they continue."""
        if unsupported == "drop":
            return tuple(c for c in self.candidates if not c.segment.critique.unsupported) or self.candidates
        return self.candidates

    def advanced(self, width: int, unsupported: Unsupported) -> Beam:
        """Return the beam with hypotheses replaced by their best continuations."""
        ended = [h for h in self.hypotheses if h.ended]
        grown = [self.hypotheses[c.parent].continued(c.segment) for c in self.eligible(unsupported)]
        return Beam(best_hypotheses(grown + ended, width), accepted=self.accepted)

    def limited(self, tokens: int, segments: int) -> Beam:
        """Return the beam with every open hypothesis stopped that has reached the limit of tokens or segments."""
        return replace(self, hypotheses=tuple(_limited(h, tokens, segments) for h in self.hypotheses))

    def decided(self, decisions: Mapping[int, Decision]) -> Beam:
        """Return the beam with decisions for some hypotheses."""
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
        """Return the beam as plain data, as kept in the graph's state."""
        return {
            "hypotheses": [h.to_state() for h in self.hypotheses],
            "judgements": [plain(p) for p in self.judgements],
            "candidates": [{"parent": c.parent, "segment": c.segment.to_state()} for c in self.candidates],
            "accepted": self.accepted,
        }

    @classmethod
    def from_state(cls, value: BeamState | None) -> Beam:
        """Rebuild the beam of a state; a single empty hypothesis if the state has none."""
        if not value:
            return cls()
        return cls(
            tuple(Hypothesis.from_state(h) for h in value["hypotheses"]),
            tuple(value["judgements"]),
            tuple(SegmentCandidate(c["parent"], Segment.from_state(c["segment"])) for c in value["candidates"]),
            value["accepted"],
        )


def best_hypotheses(hypotheses: Iterable[Hypothesis], width: int) -> tuple[Hypothesis, ...]:
    """Return the `width` hypotheses with the highest scores and distinct texts, best first; ties keep their order."""
    kept: list[Hypothesis] = []
    for h in sorted(hypotheses, key=lambda h: -h.score):
        if len(kept) < width and all(" ".join(h.text.split()) != " ".join(k.text.split()) for k in kept):
            kept.append(h)
    return tuple(kept)


def _limited(h: Hypothesis, tokens: int, segments: int) -> Hypothesis:
    if h.ended or (h.tokens < tokens and len(h.segments) < segments):
        return h
    return replace(h, stopped="tokens" if h.tokens >= tokens else "segments")
