"""Where evidence goes: into the prompt, into the model's parameters, or both.

    context       every passage's text stands in the prompt
    parametric    passages act through their adapters, merged, in every forward of this run and of no other; the prompt
                  is as long as without them
    combined      both, the adapters weakened

A passage without an adapter (its document was removed, it cannot be learnt, there are more than a call may use) stands
in the prompt, with the reason in the trace. What an adapter is, and how one is made, is known elsewhere: see
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
    """Evidence in its places."""

    in_prompt: Sequence[Passage]
    adapters: Any = None
    """The engine's adapter set; None: the base model."""
    in_weights: tuple[str, ...] = ()
    """Ids of the passages that act through their adapters."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By id, why a passage stands in the prompt that should not."""
    strength: float = 1.0
    """What multiplies the adapters' updates."""
    forgetting: float | None = None
    """What they change of the model's answers to unrelated questions, nats a token; None: not measured."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By id, why a passage is not used at all."""
    conflicts: Mapping[str, Any] | None = None
    """Which passages contradict each other about the question, as plain data; None: not measured."""
    recorded: bool = True
    """Whether the trace tells where they are; not where all of them stand in the prompt anyway."""


class PreparedEvidence(TypedDict):
    """What was done before evidence could be placed, as plain data."""

    trained: int
    translated: int
    failed: dict[str, str]
    """By id, why a passage has no adapter."""
    seconds: float
    training: NotRequired[TrainingWait]


@runtime_checkable
class Injector(Protocol):
    """Puts passages into a model's parameters."""

    @property
    def mode(self) -> Injection:
        """Where evidence goes."""
        ...

    def prepare(self, passages: Sequence[Passage]) -> PreparedEvidence:
        """Make the adapters that are missing. May take minutes, which is announced."""
        ...

    def place(self, passages: Sequence[Passage], question: str = "") -> PlacedEvidence:
        """Where each passage is to act.

        Takes no time, unless forgetting or contradictions are measured: then short forwards, once for the same
        passages and question.
        """
        ...


class PromptOnly:
    """The injector that injects nothing: every passage stands in the prompt."""

    mode: Injection = "context"

    def prepare(self, passages: Sequence[Passage]) -> PreparedEvidence:  # noqa: ARG002
        """There is nothing to make."""
        return PreparedEvidence(trained=0, translated=0, failed={}, seconds=0.0)

    def place(self, passages: Sequence[Passage], question: str = "") -> PlacedEvidence:  # noqa: ARG002
        """All of them in the prompt."""
        return PlacedEvidence(passages, recorded=False)
