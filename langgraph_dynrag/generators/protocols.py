"""What the nodes need of a model, by purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import AloneAttention, AttentionRows, Context, Draft, Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply


class TokenCounter(Protocol):
    """Measures texts in the model's tokens."""

    @property
    def context_window(self) -> int | None:
        """Tokens that a prompt and its answer may have; None if unknown."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        ...

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """How many tokens a conversation has."""
        ...

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """A text's token ids, if the model continues by ids."""
        ...


class Writer(Protocol):
    """Continues an answer."""

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether its replies begin within reasoning that the prompt has opened; None if that is not known yet."""
        ...

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Write the next draft."""
        ...

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Write the next draft."""
        ...


class Respondent(Protocol):
    """Replies to instructions that are no part of the answer."""

    def ask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """The model's replies to some instructions, each on its own."""
        ...

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """The model's replies to some instructions, each on its own."""
        ...

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """The model's reply to one instruction, of so many tokens at most."""
        ...

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """The model's reply to one instruction, of so many tokens at most."""
        ...


class SignalSource(Protocol):
    """Gives what triggers and formulators read of a model beside the tokens' probabilities."""

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals that it gives; the methods below are called for these alone."""
        ...

    def recompute(self, task: DraftTask, draft: Draft) -> AttentionRows | None:
        """The attention of a draft whose recorded rows were lost, from one forward."""
        ...

    def context(self, task: DraftTask) -> Context | None:
        """Where question and answer stand in the prompt, for formulators that read attention."""
        ...

    def attend_alone(self, text: str, token_ids: Sequence[int] | None, adapters: Any = None) -> AloneAttention:
        """Attention of a forward over a text alone."""
        ...

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:
        """Sample continuations of the accepted text, each to the end of its sentence."""
        ...


class Generator(TokenCounter, Writer, Respondent, SignalSource, Protocol):
    """A model behind the graph."""
