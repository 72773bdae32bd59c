"""What is asked of a model, and what it gives: the tasks and results that nodes and generators exchange. Plain data."""

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
"""Why a reply brought no text of the answer."""


@dataclass(frozen=True)
class DraftTask:
    """What the next draft is to be."""

    question: str
    messages: Sequence[BaseMessage]
    """The conversation up to the answer."""
    accepted: str
    """The answer so far, to be continued."""
    accepted_ids: tuple[int, ...] | None
    """Its token ids, if the model told them."""
    carried: Draft
    """Tokens that were drafted beyond the last accepted unit, and still hold."""
    carried_attention: AttentionRows | None
    unit: Unit
    limit: int
    """Tokens that may be generated now."""
    needs: frozenset[Signal]
    stop: tuple[str, ...] = ()
    answer_phrase: str | None = None
    answer_end: str | None = None
    own_words: str | None = None
    """The accepted text without what was inserted into it, where that differs."""
    deadline: float = math.inf
    """On `time.monotonic`'s clock."""
    seed: int | None = None
    adapters: Any = None
    """The engine's adapter set that the draft is written with; None: the base model."""
    closing: bool = False
    """Whether the short answer was asked for outright."""
    reasoning_apart: bool = True
    """Whether reasoning is kept out of the draft; False where searches are written within it."""
    reasoning_tokens: int = 0
    """Tokens of reasoning that are left, beyond `limit`."""
    reasons: bool = False
    """Whether the model has been seen to reason."""
    opens: bool | None = None
    """Whether its replies begin within a block of reasoning that the prompt opened. None: not known yet, so that this
    reply is read to its end."""
    restarts: bool = False
    """Whether the model has been seen to repeat what was written."""

    @property
    def open_answer(self) -> AIMessage:
        """What the model is to continue: accepted and carried text, with their token ids if known."""
        metadata: dict[str, Any] = {}
        if self.accepted_ids is not None and (self.carried.token_ids is not None or not len(self.carried)):
            metadata = {"dynprag": {"token_ids": [*self.accepted_ids, *(self.carried.token_ids or ())]}}
        return AIMessage(self.accepted + self.carried.text, response_metadata=metadata)


class CallCost(TypedDict, total=False):
    """What a model call took; absent is what was not told."""

    prompt_tokens: int
    forward_tokens: int
    """Tokens that a local model computed."""
    cached_tokens: int
    """Tokens that it took from its cache."""


class DraftCost(CallCost, total=False):
    """What a draft took. Counts of what went wrong are absent where they are 0."""

    reasoning_tokens: int
    tokens_without_logprobs: int
    """Tokens whose log-probability was needed and did not come; they count as sure."""
    retries: int
    """Requests beyond the first one."""
    fewer_alternatives: int
    """Tokens that came with fewer alternatives than were asked for, so that their entropy is less exact."""
    adapters_reloaded: int
    """How often a server had to load the adapters again."""


class ReplyCost(CallCost, total=False):
    """What a reply took."""

    generated_tokens: int


@dataclass(frozen=True)
class DraftResult:
    """A draft with its attention, and what it cost."""

    draft: Draft
    attention: AttentionRows | None = None
    cost: DraftCost = field(default_factory=DraftCost)
    reasoning: str = ""
    """As far as it was told; no part of the draft."""
    repeated: str = ""
    """What the reply repeated of the text that it was to continue; no part of the draft either."""
    problem: NoText | None = None
    """Why it brought no new text, if it did not."""
    opens: bool | None = None
    """Whether the reply began within a block of reasoning; None if it was not looked at."""
    failures: tuple[str, ...] = ()
    """What requests failed of before one succeeded."""


@dataclass(frozen=True)
class Reply:
    """The model's reply to an instruction, and what it cost."""

    text: str
    cost: ReplyCost = field(default_factory=ReplyCost)

    @classmethod
    def of(cls, message: BaseMessage) -> Reply:
        """What a chat model returned."""
        usage = getattr(message, "usage_metadata", None) or {}
        told = {"prompt_tokens": usage.get("input_tokens"), "generated_tokens": usage.get("output_tokens")}
        own = message.response_metadata.get("dynprag") or {}
        told |= {name: own.get(name) for name in ("forward_tokens", "cached_tokens")}
        return cls(answer_text(message), cast("ReplyCost", {name: n for name, n in told.items() if n is not None}))
