"""The interface of a model behind the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import AloneAttention, AttentionRows, Context, Draft, Floats, Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply
from rag_backbone.errors import SignalUnavailableError


class Generator(Protocol):
    """A model behind the graph: it continues an answer, replies to instructions, counts tokens, and gives signals.

    A generator that inherits from this class gives no states of its model, unless it overrides the last six methods.
    """

    @property
    def signals(self) -> frozenset[Signal]:
        """Signals that are available; the methods for states of the model are called only for these."""

    @property
    def context_window(self) -> int | None:
        """Maximum tokens of a prompt and its answer; None if unknown."""

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether replies begin inside a reasoning block that the prompt opened; None if not known yet."""

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens in a text."""

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Return the number of tokens in a conversation."""

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Generate the next draft."""

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Generate the next draft."""

    def ask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Return the model's replies to several independent instructions, which are not part of the answer."""

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Return the model's replies to several independent instructions, which are not part of the answer."""

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to one instruction, at most `max_tokens` tokens long."""

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to one instruction, at most `max_tokens` tokens long."""

    # ------------------------------------------------------------------------------------------- states of the model

    def token_ids(self, text: str) -> tuple[int, ...] | None:  # noqa: ARG002
        """Return the token ids of a text if the model continues answers by ids, otherwise None."""
        return None

    def recompute(self, task: DraftTask, draft: Draft) -> AttentionRows | None:  # noqa: ARG002
        """Recompute the attention of a draft whose recorded rows were lost, in one forward pass; None without any."""
        return None

    def context(self, task: DraftTask) -> Context | None:  # noqa: ARG002
        """Locate question and answer in the prompt, for query formulators that read attention; None if not known."""
        return None

    def attend_alone(self, text: str, token_ids: Sequence[int] | None, adapters: Any = None) -> AloneAttention:  # noqa: ARG002
        """Return the attention of a forward pass over a text without its context.

        Raises:
            SignalUnavailableError: If there is none; graphs that need it are refused when they are built.
        """
        raise SignalUnavailableError(f"{self!r} cannot give attention")

    def hidden_states(self, task: DraftTask, unit: Draft, depths: Sequence[float]) -> Floats:  # noqa: ARG002
        """Return the hidden states of a draft's first tokens, read after the accepted text in one forward pass.

        Args:
            task: What the draft continues.
            unit: The tokens.
            depths: Shares of the layers, above 0 and at most 1.

        Returns:
            The states after these layers, (depths, width), averaged over the positions that predict the tokens.

        Raises:
            SignalUnavailableError: If there are none; graphs that need hidden states are refused when they are built.
        """
        raise SignalUnavailableError(f"{self!r} cannot give hidden states")

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:  # noqa: ARG002
        """Sample continuations of the accepted text, each up to the end of its sentence or short answer.

        Raises:
            SignalUnavailableError: If there are none; graphs that need hidden states are refused when they are built.
        """
        raise SignalUnavailableError(f"{self!r} cannot give hidden states")
