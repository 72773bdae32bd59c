"""Records nested in the events of a trace; see `langgraph_dynrag.events.events`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from langchain_core.messages.ai import UsageMetadata
from typing_extensions import TypedDict

from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.reflection.beam import DecisionState
from langgraph_dynrag.reflection.scores import CritiqueState, SegmentScoreState

SearchProblem: TypeAlias = Literal["nothing found", "low scores", "nothing new", "same query"]
Outcome: TypeAlias = Literal["nothing found", "evidence"]
Complexity: TypeAlias = Literal["none", "single", "multi"]
"""How much retrieval a question needs: none, one, or several steps. Adaptive-RAG's labels A, B and C."""


class UsageState(TypedDict):
    """The usage that a provider reported for model calls: `Usage.to_state()`."""

    calls: int
    reported: int
    """Number of calls that reported their usage."""
    tokens: UsageMetadata | None
    """Sum of the reported usage; None if nothing was reported."""


class FoundPassage(Passage):
    """A passage that a search found."""

    new: bool
    """Whether no earlier search of the run had found it."""
    in_prompt: bool
    """Whether it was already in use."""


class EvidenceCandidate(TypedDict):
    """A passage that was tried out."""

    id: str
    title: str
    score: float | None
    """Uncertainty of the samples written with it; None if every sample is empty."""


class TrainingWait(TypedDict):
    """Adapters that had to be trained first."""

    documents: list[str]
    """Names of the documents."""
    estimated: float
    """Expected training time in seconds."""


class GenerationCost(TypedDict):
    """Tokens that a local model computed, read from its cache, and generated."""

    forward_tokens: int
    cached_tokens: int
    generated_tokens: int


class HypothesisDecision(DecisionState):
    """The decision on how one hypothesis continues."""

    hypothesis: int


class PassageName(TypedDict):
    """A passage with the name that a person recognises it by."""

    id: str
    title: str


class Continuation(SegmentScoreState):
    """A continuation with its judgements and the terms of its score."""

    hypothesis: int
    passage: PassageName | None
    kept_passage: bool
    """Whether the passage was kept from the previous segment."""
    text: str
    tokens: int
    probabilities: CritiqueState
    ended: bool


class KeptHypothesis(TypedDict):
    """A hypothesis of the beam."""

    text: str
    score: float
    passages: list[str | None]
    """One entry per segment."""
    ended: bool


class TrainingProgress(TypedDict):
    """Progress of a training job for adapters."""

    stage: Literal["questions", "teacher", "training"]
    documents: list[str]
    """Names of the documents that the job is working on."""
    made: int
    """Number of documents completed."""
    of: int
    part: float
    """Completed fraction of the whole job, 0 to 1."""
    seconds: float
    left: float
    estimated: float


class Recorded(TypedDict, total=False):
    """Fields that a node adds to the events it returns. Its first event carries the node's time and model calls."""

    node: str
    """Absent in the `custom` stream, and in events that an agent's middleware wrote."""
    seconds: float
    """Working time of the node; for a `retrieval`, the time of the search."""
    usage: UsageState
    """Usage of the node's model calls; absent if there were none."""
