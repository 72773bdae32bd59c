"""The records that events of a trace are made of; see `langgraph_dynrag.events.events`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from langchain_core.messages.ai import UsageMetadata
from typing_extensions import TypedDict

from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.reflection.beam import DecisionState
from langgraph_dynrag.reflection.scores import CritiqueState, SegmentScoreState

SearchProblem: TypeAlias = Literal["nothing found", "low scores", "nothing new", "same query"]
Outcome: TypeAlias = Literal["nothing found", "evidence"]


class UsageState(TypedDict):
    """What a provider reported of model calls: `Usage.to_state()`."""

    calls: int
    reported: int
    """Calls that reported their usage."""
    tokens: UsageMetadata | None
    """The sum of what was reported; None if nothing was."""


class FoundPassage(Passage):
    """A passage as a search found it."""

    new: bool
    """Whether no earlier search of the run had found it."""
    in_prompt: bool
    """Whether it was in use already."""


class EvidenceCandidate(TypedDict):
    """A passage that was tried out."""

    id: str
    title: str
    score: float | None
    """Uncertainty of the samples that were written with it; None if every sample is empty."""


class TrainingWait(TypedDict):
    """Adapters that had to be trained first."""

    documents: list[str]
    """Names of the documents."""
    estimated: float
    """Seconds that it was expected to take."""


class GenerationCost(TypedDict):
    """Tokens that a local model computed, took from its cache, and wrote."""

    forward_tokens: int
    cached_tokens: int
    generated_tokens: int


class HypothesisDecision(DecisionState):
    """How one hypothesis goes on."""

    hypothesis: int


class PassageName(TypedDict):
    """A passage, by what a person recognises it by."""

    id: str
    title: str


class Continuation(SegmentScoreState):
    """A continuation with its judgements and the terms of its score."""

    hypothesis: int
    passage: PassageName | None
    kept_passage: bool
    """Whether the passage is the one of the segment before."""
    text: str
    tokens: int
    probabilities: CritiqueState
    ended: bool


class KeptHypothesis(TypedDict):
    """A hypothesis of the beam."""

    text: str
    score: float
    passages: list[str | None]
    """One for each segment."""
    ended: bool


class TrainingProgress(TypedDict):
    """How far a job of training adapters is."""

    stage: Literal["questions", "teacher", "training"]
    documents: list[str]
    """Names of the documents that are worked on."""
    made: int
    """Documents that are done."""
    of: int
    part: float
    """Of the whole job, 0 to 1."""
    seconds: float
    left: float
    estimated: float
