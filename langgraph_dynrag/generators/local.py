"""The in-process generator, and the factory that picks a generator for any chat model.

`LocalGenerator` drives a `LocalChatModel`: it continues an answer token-exactly, stops inside the engine when a draft
is complete, and can give attention. `make_generator` returns a `ChatGenerator` for chat models that report
log-probabilities in OpenAI's format, and an `OpenAIGenerator`, which knows what the server can do, for those of
`langchain-openai`.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackManager
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.collector import Collector, rows_from_scores
from langgraph_dynrag.drafts.draft import MODEL_STATES, AloneAttention, AttentionRows, Context, Draft, Floats, Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit, WatchReply
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken, Reply
from langgraph_dynrag.generators.chat import ChatGenerator, unstreamed
from langgraph_dynrag.generators.fallback import COMMON_SIGNALS, FallbackGenerator
from langgraph_dynrag.generators.local_samples import sample_ends
from langgraph_dynrag.generators.protocols import Generator
from langgraph_dynrag.generators.server_policy import SERVER_STATES
from langgraph_dynrag.generators.wrapped_models import ChatModelLike, PlainModel, fallback_exceptions, plain_models
from langgraph_dynrag.reasoning import answer_text, opened_block, reasons
from rag_backbone.aio import in_own_thread
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text.special_tokens import neutralised

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy


_COUNTED = 1024
"""Number of texts, and of conversations, whose token counts are cached."""
_TURNS = (SystemMessage, HumanMessage, AIMessage)


_PlainMessages = tuple[tuple[type[BaseMessage], str], ...]


def _plain(messages: Sequence[BaseMessage]) -> _PlainMessages | None:
    """Return the types and texts of messages, or None if a message carries anything else."""
    if not messages or isinstance(messages[-1], AIMessage):  # an open answer may carry its token ids
        return None
    if any(type(m) not in _TURNS or not isinstance(m.content, str) for m in messages):
        return None
    if any(m.name or m.additional_kwargs or getattr(m, "tool_calls", None) for m in messages):
        return None
    return tuple((type(m), str(m.content)) for m in messages)


class LocalGenerator(Generator):
    """Generates drafts with an in-process model."""

    def __init__(self, model: LocalChatModel | PlainModel, *, reply_tokens: int = 48) -> None:
        plain = model if isinstance(model, PlainModel) else PlainModel(model, model)
        chat: LocalChatModel = plain.chat
        self.chat = chat
        self.calls: Runnable[LanguageModelInput, AIMessage] = plain.calls
        """The runnable that is called: the model with its wrappers."""
        self._reply_tokens = reply_tokens
        # A run counts the same passages and prompts for every draft, and again when it records what was cut.
        self._text_tokens = functools.lru_cache(_COUNTED)(lambda text: len(chat.get_token_ids(text)))
        self._chat_tokens = functools.lru_cache(_COUNTED)(
            lambda plain: len(chat.encode([kind(content) for kind, content in plain]).ids)
        )

    @property
    def signals(self) -> frozenset[Signal]:
        """All signals that the architecture allows."""
        names: set[Signal] = {"logprob", "entropy", "hidden_states"}
        if self.chat.lm.tokenizer.eos_token_id is not None:
            names.add("end_states")
        if "attention" in self.chat.lm.engine.signals:
            names |= {"attention", "attention_alone"}
        return frozenset(names)

    @property
    def opens_reasoning(self) -> bool:
        """Always False; each draft checks the chat template itself for an open reasoning block."""
        return False

    @property
    def context_window(self) -> int | None:
        """Context window of the model."""
        return self.chat.lm.context_window

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text with the model's tokenizer."""
        return self._text_tokens(text)

    def prompt_tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Count the tokens of a conversation with the model's chat template and tokenizer."""
        known = _plain(messages)
        return len(self.chat.encode(messages).ids) if known is None else self._chat_tokens(known)

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """Return the token ids of a text; special tokens in it are neutralised, as it may come from a document."""
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
        """Continue the open answer until the unit is complete, without blocking the event loop.

        Tokens pass through the event loop one by one only if a callback is asynchronous; otherwise sequences decoded in
        the same batch would wait for the loop at every step. After cancellation, the draft ends with the current token.
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
        """Ask the prompts one after the other, since there is only one engine."""
        return [
            answer_text(self.calls.invoke(self._asked(p), unstreamed(config), max_tokens=self._reply_tokens))
            for p in prompts
        ]

    async def aask(self, prompts: Sequence[str], config: RunnableConfig) -> list[str]:
        """Ask the prompts one after the other, since there is only one engine."""
        replies = []
        for p in prompts:
            reply = await self.calls.ainvoke(self._asked(p), unstreamed(config), max_tokens=self._reply_tokens)
            replies.append(answer_text(reply))
        return replies

    def reply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to a prompt in a new conversation."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "signals": []}  # `signals` makes it report token counts
        return Reply.of(self.calls.invoke([HumanMessage(prompt)], unstreamed(config), **options))

    async def areply(self, prompt: str, config: RunnableConfig, *, max_tokens: int) -> Reply:
        """Return the model's reply to a prompt in a new conversation, without blocking the event loop."""
        options: dict[str, Any] = {"max_tokens": max_tokens, "signals": []}
        return Reply.of(await self.calls.ainvoke([HumanMessage(prompt)], unstreamed(config), **options))

    def recompute(self, task: DraftTask, draft: Draft) -> AttentionRows | None:
        """Recompute attention in one forward pass over prompt and draft, reusing the prompt's cached prefix."""
        if draft.token_ids is None or not len(draft):
            return None
        prompt = self.chat.encode([*task.messages, _accepted_only(task)])
        scored = self.chat.lm.engine.score(
            prompt.ids, draft.token_ids, attention=True, adapters=task.adapters, answer_from=prompt.answer_from
        )
        assert scored.attention is not None
        return rows_from_scores(scored.attention.numpy(force=True), len(prompt.ids))

    def context(self, task: DraftTask) -> Context | None:
        """Locate the question's tokens in the rendered prompt, and return them with those of the accepted answer."""
        prompt = self.chat.encode([*task.messages, _accepted_only(task)])
        positions = prompt.tokens_of(task.question)
        pieces = tuple(prompt.text[prompt.spans[i].start : prompt.spans[i].end] for i in positions)
        ids = task.accepted_ids or ()
        return Context(pieces, tuple(positions), self._pieces(ids))

    def attend_alone(self, text: str, token_ids: Sequence[int] | None, adapters: Any = None) -> AloneAttention:
        """Compute attention in one forward pass over the text, with nothing before it."""
        ids = list(token_ids) if token_ids is not None else self.chat.get_token_ids(text)
        weights = self.chat.lm.engine.attention(ids, adapters=adapters)
        return AloneAttention(self._pieces(ids), weights.numpy(force=True))

    def hidden_states(self, task: DraftTask, unit: Draft, depths: Sequence[float]) -> Floats:
        """Read the tokens in one forward pass, reusing the prompt's cached prefix."""
        prompt = self.chat.encode([*task.messages, _accepted_only(task)])
        ids = self.chat.get_token_ids(unit.text) if unit.token_ids is None else unit.token_ids
        engine = self.chat.lm.engine
        layers = len(engine.model.get_decoder().layers)
        names = [max(round(depth * layers), 1) - 1 for depth in depths]
        scored = engine.score(
            prompt.ids, ids, hidden_states=names, adapters=task.adapters, answer_from=prompt.answer_from
        )
        return np.stack([scored.hidden_states[name].mean(0).numpy(force=True) for name in names])

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:
        """Sample all continuations; they share forward passes, and the prompt is computed once."""
        return sample_ends(self.chat, [*task.messages, _accepted_only(task)], task, spec, seed)

    def _pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        from rag_backbone.engine.stop_strings import Detokenizer

        detokenizer = Detokenizer(self.chat.lm.tokenizer, [])
        return tuple(detokenizer.push(i) for i in ids)

    def _reports_to_loop(self, config: RunnableConfig) -> bool:
        """Return whether a callback listens to the model in the event loop."""
        heard = (config.get("callbacks"), self.chat.callbacks)
        handlers = [h for c in heard if c for h in (c.handlers if isinstance(c, BaseCallbackManager) else c)]
        return any(isinstance(handler, AsyncCallbackHandler) for handler in handlers)

    def _messages(self, task: DraftTask) -> list[BaseMessage]:
        # An open answer is past any reasoning; if there is no answer yet, the model may reason first.
        begun = task.accepted or len(task.carried) or not self._may_reason(task)
        return [*task.messages, task.open_answer] if begun else list(task.messages)

    def _asked(self, prompt: str) -> list[BaseMessage]:
        """Return the messages that ask for a short reply; a reasoning model starts with the reply itself."""
        return [HumanMessage(prompt), AIMessage("")] if self._reasons else [HumanMessage(prompt)]

    @functools.cached_property
    def _reasons(self) -> bool:
        """Whether the model's chat template supports reasoning."""
        return reasons(self.chat.lm.tokenizer.chat_template)

    @functools.cached_property
    def _opens(self) -> bool:
        """Whether the chat template opens a reasoning block."""
        return self._reasons and opened_block(self.chat.encode([HumanMessage("Yes?")]).text) is not None

    def _may_reason(self, task: DraftTask) -> bool:
        return self._reasons and (task.reasoning_tokens > 0 or not task.reasoning_apart)

    def _opened(self, task: DraftTask) -> bool:
        return self._opens and task.reasoning_apart and not isinstance(self._messages(task)[-1], AIMessage)

    def _limit(self, task: DraftTask) -> int:
        """Return how many tokens may be generated, for the draft and for reasoning before it."""
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
            "stop": list(self.chat.stop or ()),  # the rule looks for the task's stop strings, in the answer only
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
"""Option -> a value for it that needs nothing beyond what a chat model reports."""


def make_generator(
    model: ChatModelLike,
    needs: frozenset[Signal],
    server: ServerPolicy | None = None,
    parts: Mapping[str, Any] | None = None,
) -> Generator:
    """Create the generator for a chat model.

    Args:
        model: Any chat model, with or without LangChain's wrappers (see `wrapped_models`).
        needs: The signals that the trigger and the query formulator read.
        server: Policy for models behind an OpenAI-compatible endpoint.
        parts: Option -> trigger, query formulator and so on, so that errors can name the part that needs a signal.

    Raises:
        SignalUnavailableError: If the model lacks a needed signal; the message says what to use instead.
        ConfigurationError: If `model` is not a chat model, or `server` is given for a model without a server.
    """
    plains = plain_models(model)
    generator: Generator
    if len(plains) == 1:
        generator = _generator_of(plains[0], needs, server, parts)
    else:
        if lacking := needs - COMMON_SIGNALS:
            raise SignalUnavailableError(
                f"the method needs {', '.join(sorted(lacking))} of the model that writes, but with fallbacks that may "
                f"be another model each time. Use a single LocalChatModel, or {_exchange(lacking, parts or {})}."
            )
        if server is not None and not any(_is_openai(plain.chat) for plain in plains):
            raise ConfigurationError(
                f"server is given, but none of the models in {shown(model)} is from langchain-openai"
            )
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
    given = SERVER_STATES if server is not None and server.states is not None and _is_openai(chat) else frozenset()
    if lacking := needs & MODEL_STATES - given:
        can_be_served = _is_openai(chat) and lacking <= SERVER_STATES
        served = "vLLM with server=ServerPolicy(states=HiddenStateServer(...)), " if can_be_served else ""
        raise SignalUnavailableError(
            f"the method needs {', '.join(sorted(lacking))}, which {type(chat).__name__} cannot give. Use "
            f"LocalChatModel, {served}or {_exchange(lacking, parts or {})}."
        )
    if _is_openai(chat):
        from langgraph_dynrag.generators.openai import OpenAIGenerator

        return OpenAIGenerator.of(plain, needs, server, assumed=assumed)
    if server is not None:
        raise ConfigurationError(
            f"server is given, but {type(chat).__name__} is not a langchain-openai model. Use "
            "ChatOpenAI(base_url=..., model=...), or leave server out."
        )
    return ChatGenerator.probed(plain, needs)


def _is_openai(chat: Any) -> bool:
    # If such a model exists, its package has been imported already.
    openai = sys.modules.get("langchain_openai.chat_models.base")
    return openai is not None and isinstance(chat, openai.BaseChatOpenAI)


def _exchange(lacking: frozenset[Signal], parts: Mapping[str, Any]) -> str:
    """Describe what to use instead of the parts that need an unavailable signal."""
    guilty = {name: part for name, part in parts.items() if getattr(part, "needs", frozenset()) & lacking}
    if not guilty:
        return "parts that do not need it: " + ", ".join(f"{n}={use}" for n, use in _NEEDS_NO_MODEL_STATE.items())
    return ", ".join(f"{name}={_NEEDS_NO_MODEL_STATE[name]} instead of {part!r}" for name, part in guilty.items())


def _accepted_only(task: DraftTask) -> AIMessage:
    metadata = {} if task.accepted_ids is None else {"dynprag": {"token_ids": list(task.accepted_ids)}}
    return AIMessage(task.accepted, response_metadata=metadata)
