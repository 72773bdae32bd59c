"""The model behind the graph, local or remote, as the nodes see it.

`LocalGenerator` drives a `LocalChatModel`: it continues an answer token-exactly, ends a draft from within, and can
give attention. `chat_generator` drives any chat model that reports log-probabilities as OpenAI does; for those of
`langchain-openai` there is `openai_generator`, which knows what their servers can do.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.collector import Collector, rows_from_scores
from langgraph_dynrag.drafts.draft import AloneAttention, AttentionRows, Context, Draft, Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit, WatchReply
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply
from langgraph_dynrag.generators.chat import ChatGenerator, unstreamed
from langgraph_dynrag.generators.fallback import COMMON_SIGNALS, FallbackGenerator
from langgraph_dynrag.generators.local_samples import sample_ends
from langgraph_dynrag.generators.protocols import Generator
from langgraph_dynrag.generators.wrapped_models import ChatModelLike, PlainModel, fallback_exceptions, plain_models
from langgraph_dynrag.reasoning import answer_text, opened_block, reasons
from rag_backbone.aio import in_own_thread
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text.special_tokens import neutralised

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy


_COUNTED = 1024
"""Texts and conversations whose numbers of tokens are remembered."""
_TURNS = (SystemMessage, HumanMessage, AIMessage)


_PlainMessages = tuple[tuple[type[BaseMessage], str], ...]


def _plain(messages: Sequence[BaseMessage]) -> _PlainMessages | None:
    """Kinds and texts of messages that are nothing more; None if one of them is."""
    if not messages or isinstance(messages[-1], AIMessage):  # an open answer may have ids of its own
        return None
    if any(type(m) not in _TURNS or not isinstance(m.content, str) for m in messages):
        return None
    if any(m.name or m.additional_kwargs or getattr(m, "tool_calls", None) for m in messages):
        return None
    return tuple((type(m), str(m.content)) for m in messages)


class LocalGenerator:
    """A model in this process."""

    def __init__(self, model: LocalChatModel | PlainModel, *, reply_tokens: int = 48) -> None:
        plain = model if isinstance(model, PlainModel) else PlainModel(model, model)
        chat: LocalChatModel = plain.chat
        self.chat = chat
        self.calls: Runnable[LanguageModelInput, AIMessage] = plain.calls
        """What is called: the model within its wrappers."""
        self._reply_tokens = reply_tokens
        # A run counts the same passages and prompts at every draft, and again when it notes what had to be cut.
        self._text_tokens = functools.lru_cache(_COUNTED)(lambda text: len(chat.get_token_ids(text)))
        self._chat_tokens = functools.lru_cache(_COUNTED)(
            lambda plain: len(chat.encode([kind(content) for kind, content in plain]).ids)
        )

    @property
    def signals(self) -> frozenset[Signal]:
        """Everything, as far as the architecture allows."""
        names: set[Signal] = {"logprob", "entropy"}
        if "attention" in self.chat.lm.engine.signals:
            names |= {"attention", "attention_alone", "end_states"}
        return frozenset(names)

    @property
    def opens_reasoning(self) -> bool:
        """Never for the nodes: each draft finds out for itself, from the chat template, whether it is within."""
        return False

    @property
    def context_window(self) -> int | None:
        """The model's."""
        return self.chat.lm.context_window

    def count_tokens(self, text: str) -> int:
        """By the model's tokenizer."""
        return self._text_tokens(text)

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """By the model's chat template and tokenizer."""
        known = _plain(messages)
        return len(self.chat.encode(messages).ids) if known is None else self._chat_tokens(known)

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """By the model's tokenizer; a document's text cannot become a control token."""
        return tuple(self.chat.get_token_ids(neutralised(self.chat.lm.tokenizer, text)))

    def draft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Continue the open answer until the unit is complete."""
        return self._draft(task, config, on_token, threading.Event())

    def _draft(
        self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None, stopped: threading.Event
    ) -> DraftResult:
        rule = StopAtUnit(task)
        collector = Collector(task, rule, on_token, opened=self._opened(task))
        for chunk in self.calls.stream(self._messages(task), unstreamed(config), **self._options(task, rule)):
            if stopped.is_set():
                break
            collector.push(chunk)
        return collector.result()

    async def adraft(self, task: DraftTask, config: RunnableConfig, on_token: OnToken | None) -> DraftResult:
        """Continue the open answer until the unit is complete; the event loop stays free.

        Single tokens pass through the loop only if a callback is asynchronous: sessions that decode together would
        wait for it at every step. Whoever is cancelled gets no more tokens; the draft ends with the one in progress.
        """
        if not self._reports_to_loop(config):
            stopped = threading.Event()
            try:
                return await in_own_thread(self._draft, task, config, on_token, stopped)
            finally:
                stopped.set()
        rule = StopAtUnit(task)
        collector = Collector(task, rule, on_token, opened=self._opened(task))
        async for chunk in self.calls.astream(self._messages(task), unstreamed(config), **self._options(task, rule)):
            collector.push(chunk)
        return collector.result()

    def ask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """One after the other; there is one engine."""
        return [
            answer_text(self.calls.invoke(self._asked(p), unstreamed(config), max_tokens=self._reply_tokens))
            for p in prompts
        ]

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """One after the other; there is one engine."""
        replies = []
        for p in prompts:
            reply = await self.calls.ainvoke(self._asked(p), unstreamed(config), max_tokens=self._reply_tokens)
            replies.append(answer_text(reply))
        return replies

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """As any chat."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "signals": []}  # with signals it tells what it computed
        return Reply.of(self.calls.invoke([HumanMessage(prompt)], unstreamed(config), **options))

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """As any chat; the event loop stays free."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "signals": []}
        return Reply.of(await self.calls.ainvoke([HumanMessage(prompt)], unstreamed(config), **options))

    def recompute(self, task: DraftTask, draft: Draft) -> AttentionRows | None:
        """One forward over prompt and draft, of which the prompt's known prefix is free."""
        if draft.token_ids is None or not len(draft):
            return None
        prompt = self.chat.encode([*task.messages, _accepted_only(task)]).ids
        scored = self.chat.lm.engine.score(prompt, draft.token_ids, attention=True, adapters=task.adapters)
        assert scored.attention is not None
        return rows_from_scores(scored.attention.numpy(force=True), len(prompt))

    def context(self, task: DraftTask) -> Context | None:
        """The question's tokens in the rendered prompt, and the accepted answer's."""
        prompt = self.chat.encode([*task.messages, _accepted_only(task)])
        positions = prompt.tokens_of(task.question)
        pieces = tuple(prompt.text[prompt.spans[i].start : prompt.spans[i].end] for i in positions)
        ids = task.accepted_ids or ()
        return Context(pieces, tuple(positions), self._pieces(ids))

    def attend_alone(self, text: str, token_ids: Sequence[int] | None, adapters: Any = None) -> AloneAttention:
        """One forward over the text; nothing precedes it."""
        ids = list(token_ids) if token_ids is not None else self.chat.get_token_ids(text)
        weights = self.chat.lm.engine.attention(ids, adapters=adapters)
        return AloneAttention(self._pieces(ids), weights.numpy(force=True))

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:
        """All in one batch, which shares the prompt's keys and values."""
        return sample_ends(self.chat, [*task.messages, _accepted_only(task)], task, spec, seed)

    def _pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        from rag_backbone.engine.stop_strings import Detokenizer

        detokenizer = Detokenizer(self.chat.lm.tokenizer, [])
        return tuple(detokenizer.push(i) for i in ids)

    def _reports_to_loop(self, config: RunnableConfig) -> bool:
        """Whether anybody listens to the model in the event loop."""
        heard = (config.get("callbacks"), self.chat.callbacks)
        handlers = [h for c in heard if c for h in (c.handlers if isinstance(c, BaseCallbackManager) else c)]
        return any(isinstance(handler, AsyncCallbackHandler) for handler in handlers)

    def _messages(self, task: DraftTask) -> list[BaseMessage]:
        # An answer that is open is no reasoning any more; where there is none yet, the model may reason first.
        begun = task.accepted or len(task.carried) or not self._may_reason(task)
        return [*task.messages, task.open_answer] if begun else list(task.messages)

    def _asked(self, prompt: str) -> list[BaseMessage]:
        """A short reply is asked for, so a model that reasons begins with the reply itself."""
        return [HumanMessage(prompt), AIMessage("")] if self._reasons else [HumanMessage(prompt)]

    @functools.cached_property
    def _reasons(self) -> bool:
        """Whether the model's chat template knows reasoning."""
        return reasons(self.chat.lm.tokenizer.chat_template)

    @functools.cached_property
    def _opens(self) -> bool:
        """Whether its template opens a block of reasoning."""
        return self._reasons and opened_block(self.chat.encode([HumanMessage("Yes?")]).text) is not None

    def _may_reason(self, task: DraftTask) -> bool:
        return self._reasons and (task.reasoning_tokens > 0 or not task.reasoning_apart)

    def _opened(self, task: DraftTask) -> bool:
        return self._opens and task.reasoning_apart and not isinstance(self._messages(task)[-1], AIMessage)

    def _limit(self, task: DraftTask) -> int:
        """Tokens that may be generated: those of the draft, and those of the reasoning before it."""
        if isinstance(self._messages(task)[-1], AIMessage) and not task.reasons:
            return task.limit
        room = self.chat.lm.context_window
        left = task.reasoning_tokens if self._reasons or task.reasons else 0
        if left and room is not None:
            left = min(left, room - self.prompt_tokens(self._messages(task)) - task.limit)
        return task.limit + max(left, 0)

    def _options(self, task: DraftTask, rule: StopAtUnit) -> dict[str, Any]:
        signals = [name for name in ("entropy", "attention") if name in task.needs]
        options: dict[str, Any] = {
            "max_tokens": self._limit(task),
            "stop": list(self.chat.stop or ()),  # the prompt's are looked for by the rule, in the answer alone
            "logprobs": True,
            "signals": signals,
            "stop_when": WatchReply(task, rule, opened=self._opened(task)),
        }
        if task.adapters is not None:
            options["adapters"] = task.adapters
        return options if task.seed is None else {**options, "seed": task.seed}

    def __repr__(self) -> str:
        return f"LocalGenerator({self.chat.model!r})"


_NEEDS_NO_MODEL_STATE = {
    "trigger": "TokenProbability() or Entropy()",
    "query": "MaskedSentence()",
    "evidence_selector": "None",
    "final_answer": "None",
}
"""What needs nothing but what a chat model reports, by the option that it is given for."""


def make_generator(
    model: ChatModelLike,
    needs: frozenset[Signal],
    server: ServerPolicy | None = None,
    parts: Mapping[str, Any] | None = None,
) -> Generator:
    """The generator for a chat model, refused if it lacks a needed signal.

    Args:
        model: Any chat model, also within LangChain's wrappers (see `wrapped_models`).
        needs: The signals that trigger and formulator read.
        server: For models behind an OpenAI-compatible endpoint.
        parts: The trigger, the query formulator and so on, by option, so that a refusal names what needs the signal.

    Raises:
        SignalUnavailableError: Naming what is needed, what there is, and what to use instead.
    """
    plains = plain_models(model)
    generator: Generator
    if len(plains) == 1:
        generator = _generator_of(plains[0], needs, server, parts)
    else:
        if lacking := needs - COMMON_SIGNALS:
            raise SignalUnavailableError(
                f"the method needs {', '.join(sorted(lacking))} of the model that writes, and with fallbacks that may "
                f"be another one each time. Give one LocalChatModel, or {_exchange(lacking, parts or {})}."
            )
        if server is not None and not any(_is_openai(plain.chat) for plain in plains):
            raise ConfigurationError(f"server is given, and no model of {shown(model)} is one of langchain-openai")
        generator = FallbackGenerator(
            [_generator_of(p, needs, server if _is_openai(p.chat) else None, parts, assumed=True) for p in plains],
            fallback_exceptions(model),
        )
    if needs and (missing := needs - generator.signals):
        raise SignalUnavailableError(
            f"the trigger or query formulator needs {', '.join(sorted(missing))}; {generator!r} gives "
            f"{', '.join(sorted(generator.signals)) or 'none'}"
        )
    return generator


def _generator_of(
    plain: PlainModel,
    needs: frozenset[Signal],
    server: ServerPolicy | None,
    parts: Mapping[str, Any] | None,
    *,
    assumed: bool = False,
) -> Generator:
    chat = plain.chat
    if isinstance(chat, LocalChatModel):
        return LocalGenerator(plain)
    if lacking := needs & {"attention", "attention_alone", "end_states"}:
        raise SignalUnavailableError(
            f"the method needs {', '.join(sorted(lacking))}, which {type(chat).__name__} cannot give. Use "
            f"LocalChatModel, or {_exchange(lacking, parts or {})}."
        )
    if _is_openai(chat):
        from langgraph_dynrag.generators.openai import OpenAIGenerator

        return OpenAIGenerator.of(plain, needs, server, assumed=assumed)
    if server is not None:
        raise ConfigurationError(
            f"server is given, and {type(chat).__name__} is no model of langchain-openai. Use "
            "ChatOpenAI(base_url=..., model=...), or leave it out."
        )
    return ChatGenerator.probed(plain, needs)


def _is_openai(chat: Any) -> bool:
    # Its package is imported by whatever made such a model.
    openai = sys.modules.get("langchain_openai.chat_models.base")
    return openai is not None and isinstance(chat, openai.BaseChatOpenAI)


def _exchange(lacking: frozenset[Signal], parts: Mapping[str, Any]) -> str:
    """What to write in place of the parts that need a signal which there is not."""
    guilty = {name: part for name, part in parts.items() if getattr(part, "needs", frozenset()) & lacking}
    if not guilty:
        return "parts that need none of it: " + ", ".join(f"{n}={use}" for n, use in _NEEDS_NO_MODEL_STATE.items())
    return ", ".join(f"{name}={_NEEDS_NO_MODEL_STATE[name]} in place of {part!r}" for name, part in guilty.items())


def _accepted_only(task: DraftTask) -> AIMessage:
    metadata = {} if task.accepted_ids is None else {"dynprag": {"token_ids": list(task.accepted_ids)}}
    return AIMessage(task.accepted, response_metadata=metadata)
