"""A LlamaIndex `LLM` that answers from the adapters of one parametric model.

Each call runs with exactly the adapters that its prompt refers to. A prompt without references, such as one that
condenses a question or an agent's planning, runs on the base model.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    LogProb,
    MessageRole,
)
from llama_index.core.bridge.pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.prompts import BasePromptTemplate

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.adapters.strategies import check_strategy
from llamaindex_prag.llama_index.arguments import CALL_OPTIONS, refuse_choosing, refuse_unknown_arguments
from llamaindex_prag.llama_index.loading import (
    described,
    load_model,
    load_served,
    load_translator,
    open_store,
    refuse_unless_loadable,
)
from llamaindex_prag.llama_index.long_prompts import ReadsInParts
from llamaindex_prag.llama_index.markers import Reference, take_markers, unsigned
from llamaindex_prag.llama_index.prompts import permitting, refuse_reading_markers
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.placer import usable_scores
from llamaindex_prag.prompts import chat_ids, conversation_ids
from llamaindex_prag.translator import checkpoint
from rag_backbone.aio import in_own_thread, iterate_in_own_thread
from rag_backbone.checks import refuse_unknown
from rag_backbone.engine.adapters import Ensemble
from rag_backbone.engine.ensemble import AdapterEnsemble
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals, TokenStep
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.embedded import NAME
from rag_backbone.loading.llamacpp_server import LlamaCppServer

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import AdapterModel
    from llamaindex_prag.translator.translator import Translator


logger = logging.getLogger(__name__)

_DEFAULT: Any = object()
"""Distinguishes an omitted argument from None."""


class ParametricLLM(ReadsInParts):
    """A language model that can hold documents in its weights, in this process or in a server.

    The serialised form names model, store, recipe and translator, and `from_dict` loads them again; a copy in another
    process (`IngestionPipeline(num_workers=...)`) is created in the same way. A model that exists only in memory must
    be passed: `from_dict(data, lm=lm)`. Copies (`copy.copy`, `copy.deepcopy`, `model_copy`) share the model.

    Args:
        lm: `"embedded"` (the default), a folder, a Hub id, a `CausalLM`, or the arguments of
            `CausalLM.from_pretrained`.
        model: Alias of `lm`.
        store: Store of the adapters: a folder, a URL, or an open store. None for one in the user's cache.
        recipe: Recipe of the adapters.
        max_adapters: Maximum number of documents per call.
        translator: Makes adapters of documents without a trained one (`missing="translate"`): a `Translator`, or the
            folder of its checkpoint.
        base_url: Address (including `/v1`) of a vLLM or llama.cpp server that runs the model and generates the answers,
            or a `LlamaCppServer`. `lm` then only provides the tokenizer, its weights are loaded only to train an
            adapter, and `store` is required.
        server: Further arguments of `ServedModel`, such as `{"loading": "resolve"}`; or with
            `{"backend": "llama.cpp", ...}`, of `LlamaCppModel`.

    A call runs with all adapters that its prompt refers to. Which nodes act is chosen before, by the `route` and
    `max_active` of `ParametricNodePostprocessor`: only there are the texts, which are used if no adapter may act.

    Calls do not change the object, so threads and tasks can share it. Prompts too long for the context window are read
    in parts or shortened, which is logged (`long_prompts`).
    """

    max_new_tokens: int = Field(default=256, ge=1, description="Maximum number of tokens in an answer.")
    temperature: float = Field(default=0.0, ge=0.0, description="Sampling temperature; 0 for greedy decoding.")
    seed: int | None = Field(default=None, description="Sampling seed.")
    merge: Merge = Field(default="mean", description="How several documents' updates are combined.")
    ensemble: Ensemble | None = Field(
        default=None, description="How the documents' next-token distributions are mixed, instead of their updates."
    )
    strength: float = Field(default=1.0, gt=0.0, description="Factor on the updates.")
    _model: AdapterModel = PrivateAttr()

    def __init__(
        self,
        *,
        lm: CausalLM | str | Path | Mapping[str, Any] | None = _DEFAULT,
        model: CausalLM | str | Path | Mapping[str, Any] | None = _DEFAULT,
        store: Any = None,
        recipe: str | Recipe | dict[str, Any] = "distill",
        max_adapters: int = 8,
        translator: Translator | str | Path | None = None,
        base_url: str | LlamaCppServer | None = None,
        server: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        refuse_choosing(options)
        refuse_unknown_arguments(type(self), options, list(inspect.signature(ParametricLLM.__init__).parameters)[1:-1])
        if lm is not _DEFAULT and model is not _DEFAULT:
            raise ConfigurationError("lm and model name the same argument; give one of them")
        lm = next((given for given in (lm, model) if given is not _DEFAULT), NAME)
        super().__init__(**options)
        chosen = get_recipe(Recipe.from_dict(recipe) if isinstance(recipe, dict) else recipe)
        in_server = base_url is not None
        check_strategy(chosen, self.merge, self.ensemble, in_server=in_server)  # before the model is loaded
        if base_url is not None:
            self._model = load_served(
                base_url,
                lm=lm,
                store=store,
                max_adapters=max_adapters,
                translator=translator,
                server=server,
                recipe=chosen,
            )
            self._model.check_strategy(self.merge, self.ensemble)
            return
        if server is not None:
            raise ConfigurationError(
                "server tells how a server is used, but there is no base_url; add base_url='http://.../v1'"
            )
        if isinstance(translator, str | Path):
            checkpoint.require(translator)  # before the model is loaded
        loaded = load_model(lm)
        self._model = ParametricModel.of(
            loaded,
            open_store(store, loaded),
            max_adapters=max_adapters,
            recipe=chosen,
            translator=load_translator(translator, loaded),
        )
        self._model.check_strategy(self.merge, self.ensemble)

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in the serialised form."""
        return "ParametricLLM"

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Serialise the fields, and what `__init__` needs to load model, store and translator again."""
        return {**handler(self), **described(self._model), "class_name": self.class_name()}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # The model is shared: it takes gigabytes, has one engine and one bank, and calls do not change it.
        memo = {} if memo is None else memo
        memo[id(self._model)] = self._model
        return super().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        refuse_unless_loadable(self._model)
        return type(self).from_dict, (self.to_dict(),)

    @property
    def model(self) -> AdapterModel:
        """The model, with its store and recipe."""
        return self._model

    @property
    def metadata(self) -> LLMMetadata:
        """Context window, output length and name."""
        lm = self._model.lm
        # Not a chat model, so that synthesizers pass their template and its arguments, not finished messages.
        return LLMMetadata(
            context_window=lm.context_window, num_output=self.max_new_tokens, is_chat_model=False, model_name=lm.name
        )

    # ------------------------------------------------------------------ what LlamaIndex calls

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return self._complete(self._request([("user", prompt)], kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, in a thread."""
        return await in_own_thread(lambda: self._complete(self._request([("user", prompt)], kwargs)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt token by token."""
        return _completions(self._steps(self._request([("user", prompt)], kwargs)))

    @llm_completion_callback()
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt token by token, computing each token in a thread."""
        request = await in_own_thread(lambda: self._request([("user", prompt)], kwargs))
        return cast("CompletionResponseAsyncGen", iterate_in_own_thread(lambda: _completions(self._steps(request))))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        return _chatted(self._complete(self._request(_turns(messages), kwargs)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation, in a thread."""
        request = await in_own_thread(lambda: self._request(_turns(messages), kwargs))
        return _chatted(await in_own_thread(self._complete, request))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation token by token."""
        steps = self._steps(self._request(_turns(messages), kwargs))
        return (_chatted(response) for response in _completions(steps))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation token by token, computing each token in a thread."""
        request = await in_own_thread(lambda: self._request(_turns(messages), kwargs))

        def responses() -> Iterator[ChatResponse]:
            return (_chatted(response) for response in _completions(self._steps(request)))

        return cast("ChatResponseAsyncGen", iterate_in_own_thread(responses))

    def _get_prompt(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Format a template, replacing stock templates that forbid answering from the weights (see `prompts`)."""
        refuse_reading_markers(prompt, prompt_args)
        return super()._get_prompt(permitting(prompt, self), **prompt_args)

    # ------------------------------------------------------------------ helpers

    def _selected(self, references: Sequence[Reference]) -> ActiveAdapters | AdapterEnsemble | None:
        model = self._model
        known = {(model.lm.fingerprint, made_by) for made_by in (model.recipe.key, model.translator_key)}
        strangers = [r for r in references if (r.key.model, r.key.recipe) not in known]
        if strangers:
            raise AdapterError(
                "the prompt refers to adapters of another model or recipe: the postprocessor and the query engine use "
                "different ParametricLLMs. Pass the same one to both."
            )
        references = [r for r in references if r.strength > 0]  # a node with strength 0 may come in a separate prompt
        keys = [r.key for r in references]
        strengths = [self.strength * r.strength for r in references]
        with _not_swallowed():
            model.check_strategy(self.merge, self.ensemble)
        if self.ensemble is not None:
            known_scores = [r.score if math.isfinite(r.score) else 0.0 for r in references]
            with _not_swallowed():
                return model.ensemble(keys, kind=self.ensemble, scores=known_scores, strength=strengths)
        scores = usable_scores([r.score for r in references]) if self.merge == "score" else None
        with _not_swallowed():
            return model.select(keys, merge=self.merge, scores=scores, strength=strengths)

    def _request(self, turns: Sequence[tuple[str, str]], options: dict[str, Any]) -> Request:
        """Return the request of one call: the tokens of its turns, and the adapters that they refer to."""
        found = [take_markers(text) for _, text in turns]
        for text, _ in found:
            _warn_of_unsigned(text)
        lm = self._model.lm
        with _not_swallowed():
            kept = self._fitted([(role, text) for (role, _), (text, _) in zip(turns, found, strict=True)])
            plain = [(turns[i][0], text) for i, text in kept]
            # A single question is formatted as in the adapters' training.
            if [role for role, _ in plain] == ["user"]:
                ids = chat_ids(lm.tokenizer, plain[0][1], name=lm.name)
            else:
                ids = conversation_ids(lm.tokenizer, plain, name=lm.name)
        adapters = self._selected([reference for i, _ in kept for reference in found[i][1]])
        with _not_swallowed():
            refuse_choosing(options)
            refuse_unknown(options, CALL_OPTIONS, "a call of ParametricLLM")
            stop = options.get("stop") or ()
            return Request(
                ids,
                int(options.get("max_tokens") or options.get("max_new_tokens") or self.max_new_tokens),
                stop=[stop] if isinstance(stop, str) else stop,
                sampling=Sampling(
                    temperature=float(options.get("temperature", self.temperature)), seed=options.get("seed", self.seed)
                ),
                signals=Signals(top_logprobs=int(options.get("top_logprobs") or 0)),
                adapters=adapters,
            )

    def _complete(self, request: Request) -> CompletionResponse:
        with _not_swallowed():
            found = self._model.lm.engine.generate(request)
        counts = {
            "prompt_tokens": found.prompt_tokens,
            "completion_tokens": len(found.steps),
            "finish_reason": found.finish_reason,
        }
        return CompletionResponse(
            text=found.text, additional_kwargs=counts, logprobs=[_logprobs(step) for step in found.steps]
        )

    def _steps(self, request: Request) -> Iterator[TokenStep]:
        with _not_swallowed(), self._model.lm.engine.stream(request) as stream:
            yield from stream

    def __repr__(self) -> str:
        return f"ParametricLLM({self._model!r}, merge={self.merge!r}, strength={self.strength:g})"


def _turns(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    """Return role and text of each message."""
    return [(str(getattr(m.role, "value", m.role)), m.content or "") for m in messages]


def _warn_of_unsigned(text: str) -> None:
    if count := unsigned(text):
        logger.warning(
            "a prompt holds %d references to adapters that this process did not sign, so they activate nothing: the "
            "prompt was written by another process, or a text in it imitates references. A saved node is signed again "
            "when it enters a prompt (node.get_content(MetadataMode.LLM)); a saved prompt must be rebuilt from its "
            "nodes",
            count,
        )


@contextlib.contextmanager
def _not_swallowed() -> Iterator[None]:
    """Turn a `ValueError` into an `AdapterError`; LlamaIndex would silently return an empty response instead."""
    try:
        yield
    except ValueError as error:
        raise AdapterError(str(error)) from error


def _logprobs(step: TokenStep) -> list[LogProb]:
    """Return the log-probability of the chosen token, followed by those of the requested alternatives."""
    chosen = LogProb(token=step.text, logprob=step.logprob, bytes=list(step.text.encode()))
    return [chosen, *(LogProb(token=str(i), logprob=p) for i, p in step.top_logprobs if i != step.token_id)]


def _completions(steps: Iterator[TokenStep]) -> Generator[CompletionResponse, None, None]:
    text = ""
    for step in steps:
        text += step.text
        yield CompletionResponse(text=text, delta=step.text, logprobs=[_logprobs(step)])


def _chatted(response: CompletionResponse) -> ChatResponse:
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=response.text),
        delta=response.delta,
        logprobs=response.logprobs,
        additional_kwargs=response.additional_kwargs,
    )
