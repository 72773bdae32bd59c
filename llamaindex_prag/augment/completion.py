"""Adapt any language model to "prompts in, replies out", detected by its methods.

    CausalLM | .complete(prompt) -> .text (LlamaIndex) | .invoke(prompt) -> .content (LangChain) | str -> str

Imports neither framework. A prompt that fails returns its exception instead of a reply, so that one failure does not
affect the others. Knows nothing of questions.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llamaindex_prag.progress import Tick, each_token
from rag_backbone.engine.requests import Generation, Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.text.chat_templates import render_chat
from rag_backbone.text.special_tokens import neutralised

CompletionResult = str | Exception


class Prompt(NamedTuple):
    """A prompt, with a seed and a reply prefix for models that support them."""

    text: str
    seed: int
    begin: str = ""
    """Beginning of the reply: a `CausalLM` continues from it, which keeps a small model to the format."""


def completer_of(llm: Any, *, temperature: float, top_k: int, max_new_tokens: int) -> Completer:
    """Wrap a model, so that it turns prompts into replies.

    Args:
        llm: A `CausalLM`, an object with `complete(prompt)` or `invoke(prompt)`, or a function from text to text.
        temperature: Sampling temperature of a `CausalLM`; other models use their own settings.
        top_k: Sampling top-k of a `CausalLM`.
        max_new_tokens: Token limit of a reply of a `CausalLM`.

    Raises:
        ConfigurationError: If `llm` is none of these, or a setting is out of range.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k)
    Request("", max_new_tokens=max_new_tokens, sampling=sampling)  # raises on settings that are out of range
    if isinstance(llm, CausalLM):
        return LocalCompleter(llm, sampling, max_new_tokens)
    for method, field in (("complete", "text"), ("invoke", "content")):
        if callable(call := getattr(llm, method, None)) and not isinstance(llm, type):
            return CalledCompleter(call, getattr(llm, "a" + method, None), field, _framework_name(llm))
    if callable(llm) and not isinstance(llm, type):
        awaited = inspect.iscoroutinefunction(llm) or inspect.iscoroutinefunction(getattr(llm, "__call__", None))  # noqa: B004 - looked at, not tested
        return CalledCompleter(None if awaited else llm, llm if awaited else None, "", _function_name(llm))
    raise ConfigurationError(
        f"llm is {llm!r:.200}; it must be a CausalLM, a LlamaIndex LLM (complete), a LangChain model (invoke), "
        "a function from text to text, or None"
    )


@dataclass(frozen=True)
class LocalCompleter:
    """Runs a `CausalLM` with its chat template and engine, several prompts per batch."""

    lm: CausalLM
    sampling: Sampling
    max_new_tokens: int
    documents_at_once: int = 4
    """Preferred number of documents per call."""

    @property
    def identity(self) -> str:
        """The model's fingerprint: two models with the same name may have different weights."""
        return self.lm.fingerprint

    def complete(self, prompts: Sequence[Prompt], written: Tick | None = None) -> list[CompletionResult]:
        """Return a reply for each prompt, in order; one that does not fit into the context window returns its error.

        Args:
            prompts: The prompts.
            written: Called with each further fraction of a reply that is generated, by tokens of the maximum number.
        """
        try:
            generations = self.lm.engine.generate_batch([self._request(p, written) for p in prompts])
            return [p.begin + _whole_lines(g) for p, g in zip(prompts, generations, strict=True)]
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the document must not be lost
            # One prompt that is too long fails the whole batch; sent one by one, the others still get replies.
            return [error] if len(prompts) == 1 else [self.complete([p], written)[0] for p in prompts]

    async def acomplete(self, prompts: Sequence[Prompt]) -> list[CompletionResult]:
        """Run `complete` in a thread."""
        return await asyncio.to_thread(self.complete, prompts)

    def _request(self, prompt: Prompt, written: Tick | None = None) -> Request:
        tokenizer = self.lm.tokenizer
        text = neutralised(tokenizer, prompt.text)  # a passage must not end its own turn
        sampling = Sampling(temperature=self.sampling.temperature, top_k=self.sampling.top_k, seed=prompt.seed)
        ids: str | list[int] = f"{text}\n\n{prompt.begin}"
        if self.lm.has_chat_template:
            rendered = render_chat(tokenizer, [{"role": "user", "content": text}], name=self.lm.name)
            ids = self.lm.engine.encode(rendered + prompt.begin)
        watched = None if written is None else each_token(written, 1 / self.max_new_tokens)
        return Request(ids, max_new_tokens=self.max_new_tokens, sampling=sampling, stop_when=watched)


@dataclass(frozen=True)
class CalledCompleter:
    """Calls a model for one prompt at a time, or asynchronously for all prompts at once."""

    call: Callable[[str], Any] | None
    acall: Callable[[str], Any] | None
    field: str
    """Attribute of the result that holds the text; empty: the result is the text."""
    identity: str | None
    """Equal exactly for models that give the same answers; None if the model cannot be identified."""
    documents_at_once: int = 1

    def complete(self, prompts: Sequence[Prompt], written: Tick | None = None) -> list[CompletionResult]:
        """Call the model once per prompt; `written` is called with 1 after each."""
        if self.call is None:
            raise ConfigurationError("llm is asynchronous only; use await aaugment(...), or give a plain function")
        replies: list[CompletionResult] = []
        for prompt in prompts:
            replies.append(self._tried(self.call, prompt.text))
            if written is not None:
                written(1.0)
        return replies

    async def acomplete(self, prompts: Sequence[Prompt]) -> list[CompletionResult]:
        """Call the model for all prompts concurrently."""
        if self.acall is None:
            return await asyncio.to_thread(self.complete, prompts)
        return await asyncio.gather(*(self._atried(self.acall, prompt.text) for prompt in prompts))

    def _tried(self, call: Callable[[str], Any], prompt: str) -> CompletionResult:
        try:
            return _text(call(prompt), self.field)
        except Exception as error:  # noqa: BLE001 - as above
            return error

    async def _atried(self, call: Callable[[str], Any], prompt: str) -> CompletionResult:
        try:
            return _text(await call(prompt), self.field)
        except Exception as error:  # noqa: BLE001 - as above
            return error


Completer = LocalCompleter | CalledCompleter


def _whole_lines(generation: Generation) -> str:
    """Return the text without a last line that the token limit truncated, unless it is the only line."""
    text = generation.text
    return text[: text.rindex("\n") + 1] if generation.finish_reason == "length" and "\n" in text else text


def _text(result: Any, field: str) -> str:
    value = result if isinstance(result, str) or not field else getattr(result, field, None)
    if isinstance(value, list):  # LangChain's content blocks
        value = "".join(b if isinstance(b, str) else str(b.get("text", "")) for b in value if isinstance(b, str | dict))
    if not isinstance(value, str):
        wanted = f"a text or an object with .{field}" if field else "a text"
        raise TypeError(f"the model returned {result!r:.200}; {wanted} is needed")
    return value


def _framework_name(llm: Any) -> str | None:
    metadata = getattr(llm, "metadata", None)
    holders = [(llm, "model_name"), (llm, "model"), (llm, "model_id"), (metadata, "model_name")]
    found = [v for holder, name in holders if isinstance(v := getattr(holder, name, None), str) and v]
    return f"{type(llm).__module__}.{type(llm).__qualname__}/{found[0]}" if found else None


def _function_name(llm: Any) -> str | None:
    name = getattr(llm, "__qualname__", None)
    return f"{llm.__module__}.{name}" if name and "<" not in name else None
