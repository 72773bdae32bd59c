"""The events of methods that judge and select continuations (Self-RAG)."""

from typing import Literal, NotRequired

from langgraph_dynrag.events.parts import Continuation, GenerationCost, HypothesisDecision, KeptHypothesis, Recorded
from langgraph_dynrag.reflection.vote import BallotState


class JudgementEvent(Recorded, GenerationCost):
    """The model was asked whether each hypothesis needs a passage. Entries are None for hypotheses not asked about."""

    type: Literal["judgement"]
    retrieval: list[dict[str, float] | None]


class ReflectionEvent(Recorded):
    """It was decided how hypotheses continue."""

    type: Literal["reflection"]
    decisions: list[HypothesisDecision]


class ContinuationsEvent(Recorded, GenerationCost):
    """Continuations of the hypotheses were written and judged."""

    type: Literal["continuations"]
    path: str
    weights: dict[str, float]
    candidates: list[Continuation]
    shortened_or_left_out: NotRequired[list[str]]


class SelectionEvent(Recorded):
    """The best continuations were kept."""

    type: Literal["selection"]
    beam: list[KeptHypothesis]
    over: bool
    """Whether the answer ends with the first of them."""
    vote: NotRequired[BallotState]
