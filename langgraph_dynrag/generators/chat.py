"""Generator for any chat model that reports log-probabilities in OpenAI's format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.constants import TAG_NOSTREAM
from tenacity import AsyncRetrying, Retrying

from langgraph_dynrag.chat_model.chat_template import message_text
from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply
from langgraph_dynrag.drafts.token_alignment import Seam
from langgraph_dynrag.generators.attempts import Attempts
from langgraph_dynrag.generators.protocols import Generator
from langgraph_dynrag.generators.wrapped_models import ChatModelLike, PlainModel, plain_models, retry_rules
from langgraph_dynrag.reasoning import answer_text, opens_reasoning
from rag_backbone.errors import SignalUnavailableError

_T = TypeVar("_T")
_ADVICE = (
    "Use a model that reports them (LocalChatModel, ChatOpenAI, vLLM), or a trigger that needs none "
    "(Never, Once, EveryNTokens, EverySentence)."
)


class ChatGenerator(Generator):
    """Any chat model that reports log-probabilities in OpenAI's format.

    Providers share no common way to continue a model's last message, so the accepted text is sent back with an
    instruction to continue it. A draft is cut off by closing the stream. Providers bill the tokens sent until then, and
    tracers show the call as interrupted.
    """

    def __init__(
        self,
        model: ChatModelLike | PlainModel,
        signals: frozenset[Signal],
        *,
        top_logprobs: int = 5,
        opens_reasoning: bool | None = None,
    ) -> None:
        plain = model if isinstance(model, PlainModel) else plain_models(model)[0]
        self.chat = plain.chat
        """The chat model without its wrappers."""
        self.calls = plain.calls
        """The runnable that is called: the chat model with its wrappers."""
        self._bound = plain.bound
        self._retry = plain.retry
        self._opens = opens_reasoning
        self._signals = signals
        self._top_logprobs = top_logprobs

    @classmethod
    def probed(cls, model: ChatModelLike | PlainModel, needs: frozenset[Signal]) -> ChatGenerator:
        """Create a generator; if log-probabilities are needed, one short call checks that the model reports them.

        Raises:
            SignalUnavailableError: If the model does not report them.
        """
        plain = model if isinstance(model, PlainModel) else plain_models(model)[0]
        if not needs & {"logprob", "entropy"}:
            return cls(plain, frozenset())
        name = type(plain.chat).__name__
        try:
            options = {**plain.bound, **_logprob_options(needs, 5), "max_tokens": 4}
            reply = plain.chat.invoke([HumanMessage("Say yes.")], **options)
        except Exception as error:
            raise SignalUnavailableError(
                f"{name} refused a call that asks for log-probabilities ({error}), which the trigger needs. {_ADVICE}"
            ) from error
        content = (reply.response_metadata.get("logprobs") or {}).get("content")
        if not content:
            raise SignalUnavailableError(
                f"{name} reports no log-probabilities (response_metadata['logprobs']['content']), which "
                f"the trigger needs. {_ADVICE}"
            )
        found: set[Signal] = {"logprob"}
        if content[0].get("top_logprobs"):
            found.add("entropy")
        return cls(plain, frozenset(found), opens_reasoning=opens_reasoning(reply))

    @property
    def signals(self) -> frozenset[Signal]:
        """Signals that the model was found to report."""
        return self._signals

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether replies begin inside a reasoning block that the prompt opened; None if not known yet."""
        return self._opens

    def note_reasoning(self, opens: bool) -> None:
        """Record whether replies begin inside a reasoning block, for later drafts."""
        self._opens = opens

    @property
    def context_window(self) -> int | None:
        """Maximum input tokens in the model's profile; None if the profile does not say."""
        profile = getattr(self.chat, "profile", None) or {}
        window = profile.get("max_input_tokens")
        return int(window) if window else None

    def count_tokens(self, text: str) -> int:
        """Return a high estimate; the tokenizer of a remote model is not available."""
        return len(text) // 3 + 1

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Return a high estimate of the tokens in a conversation."""
        return sum(self.count_tokens(message_text(m)) + 4 for m in messages)

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Ask for a continuation and close the stream when the unit is complete."""
        work = Attempts(self, task, on_token)
        for trial in Retrying(**retry_rules(self._retry, deadline=task.deadline)):
            with trial, work.watched():
                work.begin()
                for chunk in self.calls.stream(work.messages, unstreamed(config), **self._options(work.task)):
                    if work.push(chunk):
                        break
        return work.result()

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Ask for a continuation and close the stream when the unit is complete."""
        work = Attempts(self, task, on_token)
        async for trial in AsyncRetrying(**retry_rules(self._retry, deadline=task.deadline)):
            with trial, work.watched():
                work.begin()
                stream = self.calls.astream(work.messages, unstreamed(config), **self._options(work.task))
                async for chunk in stream:
                    if work.push(chunk):
                        break
        return work.result()

    def ask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Ask all prompts concurrently."""
        batch: list[Any] = [[HumanMessage(p)] for p in prompts]
        replies = self._sent(lambda: self.calls.batch(batch, unstreamed(config)))
        return [answer_text(reply) for reply in replies]

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Ask all prompts concurrently."""
        batch: list[Any] = [[HumanMessage(p)] for p in prompts]
        replies = await self._asent(lambda: self.calls.abatch(batch, unstreamed(config)))
        return [answer_text(reply) for reply in replies]

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to a prompt in a new conversation."""
        asked, options = [HumanMessage(prompt)], {"max_tokens": self._at_most(max_tokens)}
        return Reply.of(self._sent(lambda: self.calls.invoke(asked, unstreamed(config), **options)))

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to a prompt in a new conversation."""
        asked, options = [HumanMessage(prompt)], {"max_tokens": self._at_most(max_tokens)}
        return Reply.of(await self._asent(lambda: self.calls.ainvoke(asked, unstreamed(config), **options)))

    def _sent(self, request: Callable[[], _T]) -> _T:
        """Send a request, with the retries of the model's wrapper."""
        return Retrying(**retry_rules(self._retry))(request)

    async def _asent(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Send a request as `_sent` does, asynchronously."""
        return await retried(retry_rules(self._retry), request)

    def continued(self, task: DraftTask) -> tuple[list[BaseMessage], dict[str, Any], Seam]:
        """Ask again, with the written text in the last message."""
        return self._messages(task), {}, Seam(task.accepted + task.carried.text, "answers")

    def _messages(self, task: DraftTask) -> list[BaseMessage]:
        written = task.accepted + task.carried.text
        if not written.strip():
            return list(task.messages)
        *before, last = task.messages
        asked = (
            f"{message_text(last)}\n\nThe answer has been begun. Continue it from exactly where it stops, without "
            f"repeating any of it:\n{written}"
        )
        return [*before, HumanMessage(asked)]

    def _options(self, task: DraftTask) -> dict[str, Any]:
        # No stop strings: they would end the reply inside its reasoning, or at its leading blank lines. The collector
        # looks for them in the answer.
        options: dict[str, Any] = {"max_tokens": self._at_most(task.limit + self._beyond(task))}
        if task.needs & {"logprob", "entropy"}:
            options |= _logprob_options(task.needs, self._top_logprobs)
        return options if task.seed is None else {**options, "seed": task.seed}

    def _at_most(self, tokens: int) -> int:
        """Return `tokens`, or fewer if the model's bound options allow fewer."""
        names = ("max_tokens", "max_completion_tokens")
        return min([tokens, *(int(self._bound[name]) for name in names if self._bound.get(name))])

    def _beyond(self, task: DraftTask) -> int:
        """Return how many tokens a reply needs on top of the draft, judging by the model's earlier replies."""
        more = task.reasoning_tokens if task.reasons else 0
        more += self.count_tokens(task.accepted + task.carried.text) if task.restarts else 0
        window = self.context_window
        if not more or window is None:
            return more
        return max(0, min(more, window - self.prompt_tokens(self._messages(task)) - task.limit))

    def __repr__(self) -> str:
        return f"ChatGenerator({type(self.chat).__name__})"


def unstreamed(config: RunnableConfig) -> RunnableConfig:
    """Return a config that keeps tokens out of LangGraph's `messages` stream, since drafts may be discarded."""
    return {**config, "tags": [*(config.get("tags") or []), TAG_NOSTREAM]}


async def retried(rules: dict[str, Any], function: Callable[[], Awaitable[_T]]) -> _T:
    """Call an asynchronous function with tenacity's retry rules."""
    async for trial in AsyncRetrying(**rules):
        with trial:
            result = await function()
    return result


def _logprob_options(needs: frozenset[Signal], top: int) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": top} if "entropy" in needs else {"logprobs": True}
