"""Protocols of a model behind the graph, split by what its callers need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import AloneAttention, AttentionRows, Context, Draft, Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply


class TokenCounter(Protocol):
    """Counts tokens with the model's tokenizer."""

    @property
    def context_window(self) -> int | None:
        """Maximum tokens of a prompt and its answer; None if unknown."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens in a text."""
        ...

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Return the number of tokens in a conversation."""
        ...

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """Return the token ids of a text if the model continues answers by ids, otherwise None."""
        ...


class Writer(Protocol):
    """Continues an answer."""

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether replies begin inside a reasoning block that the prompt opened; None if not known yet."""
        ...

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Generate the next draft."""
        ...

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Generate the next draft."""
        ...


class Respondent(Protocol):
    """Replies to instructions that are not part of the answer."""

    def ask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Return the model's replies to several independent instructions."""
        ...

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Return the model's replies to several independent instructions."""
        ...

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to one instruction, at most `max_tokens` tokens long."""
        ...

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to one instruction, at most `max_tokens` tokens long."""
        ...


class SignalSource(Protocol):
    """Provides the model signals that triggers and query formulators read, other than token probabilities."""

    @property
    def signals(self) -> frozenset[Signal]:
        """Signals that are available; the methods below are called only for these."""
        ...

    def recompute(self, task: DraftTask, draft: Draft) -> AttentionRows | None:
        """Recompute the attention of a draft whose recorded rows were lost, in one forward pass."""
        ...

    def context(self, task: DraftTask) -> Context | None:
        """Locate question and answer in the prompt, for query formulators that read attention."""
        ...

    def attend_alone(self, text: str, token_ids: Sequence[int] | None, adapters: Any = None) -> AloneAttention:
        """Return the attention of a forward pass over a text without its context."""
        ...

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:
        """Sample continuations of the accepted text, each up to the end of its sentence or short answer."""
        ...


class Generator(TokenCounter, Writer, Respondent, SignalSource, Protocol):
    """A model behind the graph."""
