"""Where evidence goes: into the prompt, into the model's parameters, or both.

    context       the text of every passage stands in the prompt
    parametric    passages act through their adapters in every forward pass of this run and of no other; the prompt
                  gets no longer
    combined      both, with weakened adapters

A passage without an adapter (its document was removed, it cannot be learnt, or there are more than a call may use)
stands in the prompt, and the trace gives the reason. This module knows no adapters; see
`langgraph_dynrag.injection.parametric`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, runtime_checkable

from typing_extensions import TypedDict

from langgraph_dynrag.events.parts import TrainingWait
from langgraph_dynrag.evidence import Passage

Injection = Literal["context", "parametric", "combined"]


@dataclass(frozen=True)
class PlacedEvidence:
    """Evidence in its places, and why."""

    in_prompt: Sequence[Passage]
    adapters: Any = None
    """The engine's adapter set; None: the base model."""
    in_weights: tuple[str, ...] = ()
    """Ids of the passages that act through their adapters."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By id, why a passage stands in the prompt although it should act through its adapter."""
    strength: float = 1.0
    """Factor on the adapters' updates."""
    forgetting: float | None = None
    """How much they change answers to unrelated questions, in nats per token; None: not measured."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By id, why a passage is not used at all."""
    conflicts: Mapping[str, Any] | None = None
    """Which passages contradict each other about the question, as plain data; None: not measured."""
    routing: Mapping[str, float | None] | None = None
    """By id, how the router scored each passage; None: by the scores with which they were retrieved."""
    recorded: bool = True
    """Whether the trace records the places; False if all evidence stands in the prompt anyway."""


class PreparedEvidence(TypedDict):
    """What had to be done before evidence could be placed, as plain data."""

    trained: int
    translated: int
    failed: dict[str, str]
    """By id, why a passage has no adapter."""
    seconds: float
    training: NotRequired[TrainingWait]


@runtime_checkable
class Injector(Protocol):
    """Decides where passages act, and creates adapters that are missing.

    An injector whose adapters may answer as an ensemble, which has no attention and no hidden states, says so in an
    attribute `ensemble`.
    """

    @property
    def injection(self) -> Injection:
        """Where evidence goes."""

    def prepare(self, passages: Sequence[Passage], question: str = "") -> PreparedEvidence:
        """Create missing adapters of the passages that act for this question.

        May take minutes, which is announced in the log and the stream.
        """

    def place(self, passages: Sequence[Passage], question: str = "") -> PlacedEvidence:
        """Return where each passage acts.

        This is quick, unless forgetting or contradictions are measured, which takes short forward passes, once for the
        same passages and question.
        """


class PromptOnly:
    """The injector for `"context"`: every passage stands in the prompt."""

    injection: Injection = "context"

    def prepare(self, passages: Sequence[Passage], question: str = "") -> PreparedEvidence:  # noqa: ARG002
        """Return that nothing had to be created."""
        return PreparedEvidence(trained=0, translated=0, failed={}, seconds=0.0)

    def place(self, passages: Sequence[Passage], question: str = "") -> PlacedEvidence:  # noqa: ARG002
        """Return all passages in the prompt."""
        return PlacedEvidence(passages, recorded=False)
