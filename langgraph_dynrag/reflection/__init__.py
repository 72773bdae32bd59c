"""Self-RAG: a model that judges whether it needs passages, and which of its continuations is the best."""

from langgraph_dynrag.reflection.base import Reflector, SegmentSelection
from langgraph_dynrag.reflection.beam import Beam, Decision, Hypothesis, Segment
from langgraph_dynrag.reflection.scores import Critique, SegmentScore, Weights

__all__ = [
    "Beam",
    "Critique",
    "Decision",
    "Hypothesis",
    "Reflector",
    "Segment",
    "SegmentScore",
    "SegmentSelection",
    "Weights",
]
