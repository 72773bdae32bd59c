"""A local causal language model as a LangChain chat model, with token signals.

It reports log-probabilities as OpenAI's models do (`response_metadata["logprobs"]["content"]`) and, on request, signals
that an API cannot give (`response_metadata["dynprag"]`: token ids, entropies, attention rows). If the last message is
an `AIMessage`, its text is continued. Tools can be bound (see `tool_calling`). Replies in a given format
(`with_structured_output`, `response_format`) and forced calls follow their schema at every token (see `reply_grammar`);
their log-probabilities and entropies are those of the full distribution, before the tokens that the schema forbids are
masked. Weights are loaded lazily.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import AliasChoices, ConfigDict, Field, PrivateAttr, SecretStr

from langgraph_dynrag.chat_model.attention_row import AttentionRow
from langgraph_dynrag.chat_model.call_options import CALL_OPTIONS, CallOptions
from langgraph_dynrag.chat_model.chat_template import EncodedPrompt, encode_chat
from langgraph_dynrag.chat_model.reply_grammar import (
    answer_schema,
    check_calls,
    forced_call,
    json_or_calls,
    tool_schema,
)
from langgraph_dynrag.chat_model.structured_output import IncompleteCallError, Method, structured
from langgraph_dynrag.chat_model.tool_calling import (
    CallStream,
    ToolSchema,
    arguments_start,
    chosen_tools,
    name_start,
    tool_name,
)
from langgraph_dynrag.known_arguments import KnownArguments
from rag_backbone.aio import in_own_thread, iterate_in_own_thread
from rag_backbone.checks import refuse_unknown
from rag_backbone.engine.grammar import Grammar
from rag_backbone.engine.requests import FinishReason
from rag_backbone.engine.signals import TokenStep
from rag_backbone.loading.causal_lm import CausalLM, DType
from rag_backbone.loading.model_checks import refuse_unless_instance

_IN_MEMORY = "LocalChatModel.from_causal_lm(CausalLM(model, tokenizer))"


@dataclass
class _Held:
    """Holds the model once it is loaded; copies of a chat model share it."""

    lm: CausalLM | None = None
    loading: threading.Lock = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self


class LocalChatModel(KnownArguments, BaseChatModel):
    """Chat model that runs in this process.

    Generation options can also be given per call: `model.invoke(messages, temperature=0.7, seed=1)`. A call
    additionally accepts `signals` (any of `"entropy"`, `"attention"`), `stop_when` (a `StopRule`), `logit_bias` (token
    id to bias) and `adapters`. Unknown arguments are refused by the constructor, by `bind` and by each call.

    Example:
        >>> llm = LocalChatModel(max_tokens=32)  # doctest: +SKIP
        >>> llm.invoke("What is the capital of France?").content  # doctest: +SKIP
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    model: str = Field(default="embedded", validation_alias=AliasChoices("model", "model_name"))
    """`"embedded"`, a folder, or a Hub id."""
    device: str = "auto"
    dtype: DType = "auto"
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_tokens: int = Field(
        default=256, ge=1, validation_alias=AliasChoices("max_tokens", "max_completion_tokens", "max_new_tokens")
    )
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    seed: int | None = None
    logprobs: bool = False
    """Whether to report log-probabilities."""
    top_logprobs: int = Field(default=0, ge=0)
    """Number of alternatives to report for each token; turns `logprobs` on."""
    streaming: bool = False
    """Whether `invoke` streams too, so that callbacks see the tokens."""
    timeout: float | None = Field(default=None, gt=0, validation_alias=AliasChoices("timeout", "request_timeout"))
    """Maximum seconds for a reply, checked after each token; raises `TimeoutError` when exceeded."""
    max_retries: int | None = None
    """Accepted because LangChain passes it to every chat model; ignored, as an in-process model has no requests to
    retry."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Accepted because LangChain passes it to every chat model; ignored."""

    _held: _Held = PrivateAttr(default_factory=_Held)

    def __init__(self, **data: Any) -> None:
        for name in ("model", "model_name"):
            if isinstance(data.get(name), Path):
                data[name] = str(data[name])
            needed = f"'embedded', a folder or a Hub id (in memory: {_IN_MEMORY})"
            refuse_unless_instance(name, data.get(name, ""), str, needed)
        super().__init__(**data)

    @classmethod
    def from_causal_lm(cls, lm: CausalLM, **options: Any) -> LocalChatModel:
        """Create a chat model from a model that is already loaded, sharing its engine."""
        refuse_unless_instance("lm", lm, CausalLM, "a CausalLM")
        chat = cls(model=lm.name, **options)
        chat._held.lm = lm
        return chat

    @property
    def lm(self) -> CausalLM:
        """The language model, loaded lazily."""
        with self._held.loading:
            if self._held.lm is None:
                self._held.lm = CausalLM.from_pretrained(self.model, device=self.device, dtype=self.dtype)
            return self._held.lm

    # ------------------------------------------------------------------ used by dynamic RAG

    def encode(self, messages: Sequence[BaseMessage], tools: Sequence[ToolSchema] = ()) -> EncodedPrompt:
        """Encode a conversation as token ids, with each token's characters."""
        return encode_chat(self.lm.tokenizer, messages, tools, name=self.lm.name)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the model's token ids of a text, without special tokens."""
        return self.lm.engine.encode(text)

    # ------------------------------------------------------------------ BaseChatModel

    def bind(self, **kwargs: Any) -> Any:
        """Bind options to every call.

        Raises:
            ConfigurationError: If a name is not an option of a call, or replies cannot be constrained to the response
                format.
        """
        refuse_unknown(kwargs, CALL_OPTIONS, "a call of LocalChatModel")
        answer_schema(kwargs.get("response_format"))
        return super().bind(**kwargs)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools that the model may call.

        Args:
            tools: Anything that LangChain accepts as a tool.
            tool_choice: "auto" leaves it to the model, "none" offers no tool, "any" or a tool's name forces one call. A
                forced call is prefilled up to its arguments, which follow the tool's schema; among several tools, the
                one whose name is the most likely is called. If `max_tokens` or a stop string cuts the call off, an
                `IncompleteCallError` is raised.
            **kwargs: Options of each call.

        Raises:
            ConfigurationError: If the choice names an unknown tool, or a forced call cannot be constrained to its
                schema.
        """
        schemas = [tool_schema(t) for t in tools]
        _, forced = chosen_tools(schemas, tool_choice)
        check_calls(forced)
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=schemas, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: Method = "function_calling",
        strict: bool | None = None,  # noqa: ARG002 - replies always follow the schema
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable whose replies follow a schema at every token and are parsed.

        A reply that ends before its JSON is complete, at `max_tokens` or at a stop string, is an
        `OutputParserException`; a reply that a Pydantic validator rejects is a `ValidationError`. Both are raised, or
        returned as `parsing_error` with `include_raw`.

        Args:
            schema: A Pydantic class, a `TypedDict`, a JSON schema, or an OpenAI function or tool. Objects that list
                their properties get no other keys.
            include_raw: Whether to return a dict of `raw`, `parsed` and `parsing_error`; if False, the parsed value is
                returned and errors are raised.
            method: `"function_calling"` describes the schema in the prompt, as a tool that must be called.
                `"json_schema"` leaves the prompt unchanged; the reply is the JSON itself, which can be streamed.
                `"json_mode"` constrains the reply to any JSON object; a Pydantic class only validates it.
            strict: Accepted because other chat models have it; replies always follow the schema.
            **kwargs: Options of each call.

        Raises:
            ConfigurationError: If replies cannot be constrained to the schema; the message gives the reason.
        """
        return structured(self, schema, method=method, include_raw=include_raw, options=kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = list(self._stream(messages, stop, run_manager, **kwargs))
        merged = chunks[0]
        for chunk in chunks[1:]:
            merged += chunk
        info = dict(merged.generation_info or {})
        assert isinstance(merged.message, AIMessageChunk)
        calls = merged.message.tool_calls
        message = AIMessage(
            content=str(merged.message.content).strip() if calls else merged.message.content,
            tool_calls=calls,
            response_metadata=info,
            usage_metadata=merged.message.usage_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - BaseChatModel reports the chunks itself
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options = CallOptions(self, stop, kwargs)
        prompt, calls, grammar = self._prepared(messages, options)
        called, left = False, list[ChatGenerationChunk]()
        reason: FinishReason | None = None
        generated = 0
        with self.lm.engine.stream(options.request(prompt, grammar)) as steps:
            for step in steps:
                generated += 1
                options.check_time(generated)
                ends = options.stop_when is not None and options.stop_when(step.text)
                message = AIMessageChunk(content=step.text)
                chunk = ChatGenerationChunk(message=message, generation_info=self._info(step, options))
                if calls is None:
                    yield chunk
                else:
                    yield from calls.push(chunk, step.text)
                if ends or (calls is not None and calls.over):
                    reason = "cancelled"
                    break
            reason = reason or steps.finish_reason
            if calls is not None:
                left, called = calls.finish()
                if called or not options.forced:
                    yield from left
            last: dict[str, Any] = {
                "finish_reason": "tool_calls" if called else "length" if reason == "length" else "stop",
                "model_name": self.lm.name,
            }
            if options.signals is not None:
                # Counted before the row below, since the attention of the last token costs one more forward pass.
                counts = steps.generation().counts
                last["dynprag"] = {"forward_tokens": counts.forward_tokens, "cached_tokens": counts.cached_tokens}
                if options.signals.attention and generated:
                    last["dynprag"]["attention"] = [AttentionRow(steps.closing_attention().numpy(force=True))]
        usage = UsageMetadata(
            input_tokens=len(prompt.ids), output_tokens=generated, total_tokens=len(prompt.ids) + generated
        )
        if options.forced and not called:
            text = "".join(str(chunk.message.content) for chunk in left)
            raise IncompleteCallError(AIMessage(text, response_metadata=last, usage_metadata=usage))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=usage, chunk_position="last"), generation_info=last
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        manager = None if run_manager is None else run_manager.get_sync()
        return await in_own_thread(self._generate, messages, stop, manager, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        manager = None if run_manager is None else run_manager.get_sync()
        async for chunk in iterate_in_own_thread(lambda: self._stream(messages, stop, manager, **kwargs)):
            yield chunk

    def _prepared(
        self, messages: list[BaseMessage], options: CallOptions
    ) -> tuple[EncodedPrompt, CallStream | None, Grammar | None]:
        """Return the prompt, the parser of calls if there are tools, and the grammar that constrains the reply.

        A forced call is prefilled at the end of the prompt.
        """
        tools, begun, text = options.tools, "", None
        if options.forced:
            told = self.encode(messages, tools).text
            begun = name_start(told)
            tool = self._likeliest(messages, options, begun)
            begun += tool_name(tool) + arguments_start(told)
            prompt = self.encode([*messages, AIMessage(begun)], tools)
            text = forced_call(tool)
        elif options.answer is not None:
            # An empty answer closes a reasoning block opened by the template, so that the JSON begins at once.
            continued = isinstance(messages[-1], AIMessage)
            prompt = self.encode(messages if continued else [*messages, AIMessage("")], tools)
            parallel = options.parallel_tool_calls
            text = json_or_calls(options.answer, tools, prompt.text, parallel=parallel)
        else:
            prompt = self.encode(messages, tools)
        grammar = None if text is None else Grammar(text, self.lm.tokenizer, self.lm.engine.end_ids)
        if not tools:
            return prompt, None, grammar
        names = [tool_name(t) for t in tools]
        return prompt, CallStream(names, begun, parallel=options.parallel_tool_calls), grammar

    def _likeliest(self, messages: list[BaseMessage], options: CallOptions, begun: str) -> ToolSchema:
        """Return the forced tool whose name has the highest mean log-probability per token."""
        if len(options.forced) == 1:
            return options.forced[0]
        prompt = self.encode([*messages, AIMessage(begun)], options.tools)
        score_name = partial(
            self.lm.engine.score, prompt.ids, adapters=options.adapters, answer_from=prompt.answer_from
        )

        def score(tool: ToolSchema) -> float:
            name = self.get_token_ids(tool_name(tool) + '"')
            return score_name(name).logprobs.mean().item()

        return max(options.forced, key=score)

    def _info(self, step: TokenStep, options: CallOptions) -> dict[str, Any]:
        info: dict[str, Any] = {}
        if options.logprobs:
            decode = self.lm.tokenizer.decode
            entry = {**_token_logprob(step.text, step.logprob), "top_logprobs": []}
            entry["top_logprobs"] = [_token_logprob(str(decode([t])), lp) for t, lp in step.top_logprobs]
            info["logprobs"] = {"content": [entry]}
        if options.signals is not None:
            own: dict[str, Any] = {"token_ids": [step.token_id]}
            if step.entropy is not None:
                own["entropies"] = [step.entropy]
            if step.attention is not None:
                own["attention"] = [AttentionRow(step.attention.numpy(force=True))]
            info["dynprag"] = own
        return info

    @property
    def _llm_type(self) -> str:
        return "dynprag-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # Part of the LLM cache's key: everything that changes the answer belongs here.
        names = ("model", "dtype", "temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "logprobs")
        return {name: getattr(self, name) for name in (*names, "top_logprobs")}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="dynprag",
            ls_model_name=kwargs.get("model", self.model),
            ls_model_type="chat",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop or []
        return params


def _token_logprob(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "bytes": list(text.encode()), "logprob": logprob}
