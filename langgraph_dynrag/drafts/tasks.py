"""Tasks and results that nodes and generators exchange. Plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, BaseMessage
from typing_extensions import TypedDict

from langgraph_dynrag.drafts.draft import AttentionRows, Draft, Signal, Unit
from langgraph_dynrag.reasoning import answer_text

OnToken = Callable[[str, float | None, float | None], None]
"""Called with each new token's characters, log-probability and entropy."""

NoText = Literal[
    "no text", "only reasoning", "cut off before any text", "only what was written", "cut off while repeating"
]
"""Why a reply contains no text of the answer."""


@dataclass(frozen=True)
class DraftTask:
    """Specification of the next draft."""

    question: str
    messages: Sequence[BaseMessage]
    """Conversation up to the answer."""
    accepted: str
    """Answer so far, to be continued."""
    accepted_ids: tuple[int, ...] | None
    """Token ids of `accepted`, if the model reported them."""
    carried: Draft
    """Tokens that were drafted beyond the last accepted unit and are still valid."""
    carried_attention: AttentionRows | None
    unit: Unit
    limit: int
    """Maximum number of tokens to generate now."""
    needs: frozenset[Signal]
    stop: tuple[str, ...] = ()
    answer_phrase: str | None = None
    answer_end: str | None = None
    own_words: str | None = None
    """Accepted text without inserted passages, if that differs."""
    deadline: float = math.inf
    """Deadline on the clock of `time.monotonic`."""
    seed: int | None = None
    adapters: Any = None
    """The engine's active adapters for this draft; None for the base model."""
    closing: bool = False
    """Whether the prompt explicitly asks for the short answer."""
    reasoning_apart: bool = True
    """Whether reasoning is kept out of the draft; False if searches are written inside reasoning."""
    reasoning_tokens: int = 0
    """Remaining budget of reasoning tokens, on top of `limit`."""
    reasons: bool = False
    """Whether the model has been seen to reason."""
    opens: bool | None = None
    """Whether its replies begin inside a reasoning block that the prompt opened. None: not known yet, so this reply is
    read to its end."""
    restarts: bool = False
    """Whether the model has been seen to repeat text that was already written."""

    @property
    def open_answer(self) -> AIMessage:
        """Message that the model should continue: accepted and carried text, with their token ids if known."""
        metadata: dict[str, Any] = {}
        if self.accepted_ids is not None and (self.carried.token_ids is not None or not len(self.carried)):
            metadata = {"dynprag": {"token_ids": [*self.accepted_ids, *(self.carried.token_ids or ())]}}
        return AIMessage(self.accepted + self.carried.text, response_metadata=metadata)


class CallCost(TypedDict, total=False):
    """Cost of a model call; keys that the model does not report are absent."""

    prompt_tokens: int
    forward_tokens: int
    """Tokens that a local model computed."""
    cached_tokens: int
    """Tokens that a local model read from its cache."""


class DraftCost(CallCost, total=False):
    """Cost of a draft. Counts of problems are absent if they are 0."""

    reasoning_tokens: int
    tokens_without_logprobs: int
    """Tokens whose log-probability was needed but not reported; they count as certain."""
    retries: int
    """Requests after the first one."""
    fewer_alternatives: int
    """Tokens reported with fewer alternatives than requested, so that their entropy is less exact."""
    adapters_reloaded: int
    """Number of times that a server had to reload the adapters."""


class ReplyCost(CallCost, total=False):
    """Cost of a reply."""

    generated_tokens: int


@dataclass(frozen=True)
class DraftResult:
    """A draft with its attention, its cost, and the parts of the reply that do not belong to it."""

    draft: Draft
    attention: AttentionRows | None = None
    cost: DraftCost = field(default_factory=DraftCost)
    reasoning: str = ""
    """Reasoning as far as it was reported; not part of the draft."""
    repeated: str = ""
    """Beginning of the reply that repeats already written text; not part of the draft."""
    problem: NoText | None = None
    """Why the reply contains no new text; None if it does."""
    opens: bool | None = None
    """Whether the reply began inside a reasoning block; None if this was not checked."""
    failures: tuple[str, ...] = ()
    """Errors of the requests that failed before one succeeded."""


@dataclass(frozen=True)
class Reply:
    """The model's reply to an instruction, with its cost."""

    text: str
    cost: ReplyCost = field(default_factory=ReplyCost)

    @classmethod
    def of(cls, message: BaseMessage) -> Reply:
        """Create a reply from a chat model's message."""
        usage = getattr(message, "usage_metadata", None) or {}
        told = {"prompt_tokens": usage.get("input_tokens"), "generated_tokens": usage.get("output_tokens")}
        own = message.response_metadata.get("dynprag") or {}
        told |= {name: own.get(name) for name in ("forward_tokens", "cached_tokens")}
        return cls(answer_text(message), cast("ReplyCost", {name: n for name, n in told.items() if n is not None}))
