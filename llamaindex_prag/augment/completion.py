"""Any language model as "prompts in, replies out", recognised by what it can do.

    CausalLM | .complete(prompt) -> .text (LlamaIndex) | .invoke(prompt) -> .content (LangChain) | str -> str

Neither framework is imported. A prompt that fails gives its exception in place of the reply, so that one failure does
not take the others with it. Knows nothing of questions.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from llamaindex_prag.progress import Tick, each_token
from rag_backbone.engine.requests import Generation, Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.text.chat_templates import render_chat
from rag_backbone.text.special_tokens import neutralised

CompletionResult = str | Exception


class Prompt(NamedTuple):
    """One prompt; what else there is of it serves models that take it."""

    text: str
    seed: int
    begin: str = ""
    """How the reply begins: a model of our own goes on from there, which keeps a small one to the form."""


class Completer(Protocol):
    """What an augmenter needs of a model."""

    @property
    def documents_at_once(self) -> int:
        """Of how many documents it wants the prompts together."""

    @property
    def identity(self) -> str | None:
        """Equal exactly for models that answer alike; None if nothing tells this model from another one."""

    def complete(self, prompts: Sequence[Prompt], written: Tick | None = None) -> list[CompletionResult]:
        """A reply for each prompt, in their order.

        Args:
            prompts: Which.
            written: Told what part of a reply more is there: of a model in this process the part of the most tokens.
        """

    async def acomplete(self, prompts: Sequence[Prompt]) -> list[CompletionResult]:
        """The same, without blocking the event loop."""


def completer_of(llm: Any, *, temperature: float, top_k: int, max_new_tokens: int) -> Completer:
    """Adapt a model.

    Args:
        llm: A `CausalLM`, an object with `complete(prompt)` or `invoke(prompt)`, or a function from text to text.
        temperature: Of a `CausalLM`; the others bring their own settings.
        top_k: Likewise.
        max_new_tokens: Likewise.

    Raises:
        ConfigurationError: If it is none of these.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k)
    Request("", max_new_tokens=max_new_tokens, sampling=sampling)  # refuses what is out of range
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
    """A `CausalLM`, through its chat template and its engine, several prompts in one batch."""

    lm: CausalLM
    sampling: Sampling
    max_new_tokens: int
    documents_at_once: int = 4

    @property
    def identity(self) -> str:
        """The fingerprint: two models of one name may have other weights."""
        return self.lm.fingerprint

    def complete(self, prompts: Sequence[Prompt], written: Tick | None = None) -> list[CompletionResult]:
        """Generate; prompts that do not fit into the context window give their error."""
        try:
            generations = self.lm.engine.generate_batch([self._request(p, written) for p in prompts])
            return [p.begin + _whole_lines(g) for p, g in zip(prompts, generations, strict=True)]
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the document must not be lost
            # One prompt too long refuses the batch: alone, the others still get their replies.
            return [error] if len(prompts) == 1 else [self.complete([p], written)[0] for p in prompts]

    async def acomplete(self, prompts: Sequence[Prompt]) -> list[CompletionResult]:
        """In a thread."""
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
    """A model behind a call, one prompt at a time; asynchronously all at once."""

    call: Callable[[str], Any] | None
    acall: Callable[[str], Any] | None
    field: str
    """Where the call's result holds its text; empty: the result is the text."""
    identity: str | None
    documents_at_once: int = 1

    def complete(self, prompts: Sequence[Prompt], written: Tick | None = None) -> list[CompletionResult]:
        """Call for each prompt."""
        if self.call is None:
            raise ConfigurationError("llm is asynchronous only; use await aaugment(...), or give a plain function")
        replies: list[CompletionResult] = []
        for prompt in prompts:
            replies.append(self._tried(self.call, prompt.text))
            if written is not None:
                written(1.0)
        return replies

    async def acomplete(self, prompts: Sequence[Prompt]) -> list[CompletionResult]:
        """Call for all prompts at once."""
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


def _whole_lines(generation: Generation) -> str:
    """Without a last line that the limit has cut off, unless it is the only one."""
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
