"""Handles prompts that exceed the model's context window: they are read in parts, or shortened.

LlamaIndex packs retrieved text with its own tokenizer (tiktoken's, unless `Settings.tokenizer` is set). It gives long
Thai, Hindi, Chinese or German text a third to a half fewer tokens than most models' tokenizers, so a prompt that
LlamaIndex considers short enough may be too long:

    a template with retrieved text     the context is split by the model's tokenizer and read part by part, each call
                                       seeing the answer so far; nothing is left out
    a conversation                     the oldest turns are left out
    any other prompt                   the middle is left out, as instructions come first and questions last

Each case is logged at WARNING with token counts. A question that alone exceeds the window is rejected.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate, SelectorPromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen

from llamaindex_prag.llama_index.markers import marker, take_markers
from llamaindex_prag.prompts import chat_ids, conversation_ids
from rag_backbone.errors import AdapterError
from rag_backbone.text.unicode import repaired

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.adapter_model import AdapterModel, LanguageModel

logger = logging.getLogger(__name__)

PromptTurn = tuple[str, str]
"""Role and text of a message."""

_CONTEXTS = ("context_str", "context_msg")
"""Arguments of LlamaIndex's templates that hold retrieved text."""
_EARLIER = "An earlier answer, from other parts of the text: {answer}\n\n"
_GAP = "\n[...]\n"
_ROOM = 16
"""Tokens kept free, because a text that was cut may have a few more tokens than the sum of its parts."""
_STOPS = ("\n", "。", "！", "？", "।", ". ", "? ", "! ", " ")
"""Where a text is cut, best first; without any of them, it is cut between two characters."""
_HELP = "LlamaIndex counted fewer tokens; it counts like the model after Settings.tokenizer = llm.tokenizer"


class ReadsInParts(LLM):
    """An `LLM` that counts tokens like its model, and reads a context that is too long in parts."""

    max_new_tokens: int

    @property
    def model(self) -> AdapterModel:
        """The model whose tokenizer is used for counting."""
        raise NotImplementedError

    @property
    def tokenizer(self) -> Callable[[str], list[int]]:
        """The model's tokenizer in the form that LlamaIndex expects: `Settings.tokenizer = llm.tokenizer`.

        A lone surrogate, which no tokenizer accepts, is counted as the U+FFFD that the model will read in its place.
        """
        tokenizer = self.model.lm.tokenizer

        def tokens(text: str) -> list[int]:
            return list(tokenizer(repaired(text)[0], add_special_tokens=False).input_ids)

        return tokens

    def as_prompt_helper(self) -> PromptHelper:
        """Return a helper that packs text by the model's token counts, including its chat template.

        Set it for one engine with `response_synthesizer=get_response_synthesizer(llm=llm,
        prompt_helper=llm.as_prompt_helper())`, or for all with `Settings.prompt_helper`. LlamaIndex then builds no
        prompt that has to be read in parts.
        """
        around = len(chat_ids(self.model.lm.tokenizer, "", name=self.model.lm.name)) + _ROOM
        window = self.metadata.context_window - around
        return PromptHelper(context_window=window, num_output=self.metadata.num_output, tokenizer=self.tokenizer)

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer a template; a context that is too long is read in parts."""
        return super().predict(prompt, **self._last_part(prompt, prompt_args))

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer a template; a context that is too long is read in parts."""
        return await super().apredict(prompt, **await self._alast_part(prompt, prompt_args))

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Answer a template as a stream; if the context is read in parts, only the last answer is streamed."""
        return super().stream(prompt, **self._last_part(prompt, prompt_args))

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Answer a template as a stream; if the context is read in parts, only the last answer is streamed."""
        return await super().astream(prompt, **await self._alast_part(prompt, prompt_args))

    def _last_part(self, prompt: BasePromptTemplate, prompt_args: dict[str, Any]) -> dict[str, Any]:
        """Read all parts except the last, and return the arguments of the last call."""
        reading = _Reading(self, prompt, prompt_args)
        while arguments := reading.before_the_last():
            reading.answer = super().predict(prompt, **arguments)
        return reading.last()

    async def _alast_part(self, prompt: BasePromptTemplate, prompt_args: dict[str, Any]) -> dict[str, Any]:
        reading = _Reading(self, prompt, prompt_args)
        while arguments := reading.before_the_last():
            reading.answer = await super().apredict(prompt, **arguments)
        return reading.last()

    @property
    def spare_tokens(self) -> int:
        """Number of tokens kept free for the answer when a prompt is cut."""
        return min(self.max_new_tokens, self.model.lm.context_window // 4)

    def prompt_tokens(self, prompt: BasePromptTemplate, arguments: Mapping[str, Any]) -> int:
        """Count the tokens of a formatted template as the model reads it."""
        text, _ = take_markers(self._get_prompt(prompt, **arguments))
        return len(chat_ids(self.model.lm.tokenizer, text, name=self.model.lm.name))

    def _fitted(self, turns: Sequence[PromptTurn]) -> list[tuple[int, str]]:
        """Return the turns that fit into the window, as pairs of index and text, which may be shortened.

        Raises:
            AdapterError: If the question alone does not fit.
        """
        lm = self.model.lm
        fits = lm.context_window - 1  # leaves one token for the answer
        kept = list(enumerate(text for _, text in turns))

        def tokens(these: Sequence[tuple[int, str]]) -> int:
            return len(conversation_ids(lm.tokenizer, [(turns[i][0], text) for i, text in these], name=lm.name))

        if not kept or tokens(kept) <= fits:
            return kept
        before, limit = tokens(kept), lm.context_window - self.spare_tokens
        asked = max((i for i, (role, _) in enumerate(turns) if role == "user"), default=len(turns) - 1)
        if len(turns) > 1:
            refuse_long_question(lm, turns[asked][1])
        while tokens(kept) > limit:
            old = next((n for n, (i, _) in enumerate(kept) if turns[i][0] != "system" and i != asked), None)
            if old is None:
                break
            del kept[old]
        told = [f"{left_out} of {len(turns)} messages, the oldest"] if (left_out := len(turns) - len(kept)) else []
        while (excess := tokens(kept) - limit) > 0:
            free = [n for n, (i, _) in enumerate(kept) if i != asked] or [0]
            n = max(free, key=lambda n: len(kept[n][1]))
            i, text = kept[n]
            size = len(self.tokenizer(text)) - excess - _ROOM
            if size <= 0:
                break
            kept[n] = (i, _without_middle(lm.tokenizer, text, size))
            told.append(f"the middle of a {turns[i][0]} message" if len(turns) > 1 else "its middle")
        logger.warning(
            "a prompt of %d tokens is too long for the %d of %s: %s (%d tokens) left out. %s",
            before,
            lm.context_window,
            lm.name,
            " and ".join(dict.fromkeys(told)),
            before - tokens(kept),
            _HELP,
        )
        return kept


def refuse_long_question(lm: LanguageModel, question: str) -> None:
    """Check that a question alone fits into the context window.

    Raises:
        AdapterError: If it does not; the message gives its number of tokens.
    """
    tokens = len(chat_ids(lm.tokenizer, question, name=lm.name))
    if tokens >= lm.context_window:
        raise AdapterError(
            f"the question has {tokens} tokens with the model's template, but the context window of {lm.name} has only "
            f"{lm.context_window}; ask a shorter question, and put long texts into documents"
        )


class _Reading:
    """Reads the prompt of one template in as many calls as its context needs."""

    def __init__(self, llm: ReadsInParts, prompt: BasePromptTemplate, arguments: dict[str, Any]) -> None:
        self.answer: str | None = None
        """Answer so far; None before the first call."""
        self._llm, self._prompt = llm, prompt
        self._lm = llm.model.lm
        # `SimpleSummarize` passes a list with one text, which would appear in the prompt as a Python list.
        self._arguments = {name: _joined(value) if name in _CONTEXTS else value for name, value in arguments.items()}
        self._name = next((name for name in _CONTEXTS if isinstance(self._arguments.get(name), str)), "")
        self._rest, self._markers = "", ""
        if not self._name:
            return
        tokens = llm.prompt_tokens(prompt, self._arguments)
        if tokens + llm.spare_tokens // 2 <= self._lm.context_window:
            return
        question = self._given("query_str")
        refuse_long_question(self._lm, question)
        # Every part is read with all adapters, because a part does not tell which adapters its passages belong to.
        self._rest, found = take_markers(self._arguments[self._name])
        self._markers = "".join(f"{marker(r.key, r.score, r.strength)}\n" for r in found)
        size = self._room({**self._arguments, self._name: ""})
        if size < self._least:  # the rest of the prompt is too long; see `ReadsInParts._fitted`
            self._rest = ""
            return
        context = len(llm.tokenizer(self._rest))
        logger.warning(
            "a prompt of %d tokens is too long for the %d of %s: its context of %d tokens is read in about %d parts, "
            "each with the answer so far. %s",
            tokens,
            self._lm.context_window,
            self._lm.name,
            context,
            -(-context // size),
            _HELP,
        )

    def before_the_last(self) -> dict[str, Any] | None:
        """Return the arguments of the next call, or None if it would be the last."""
        if not self._rest:
            return None
        arguments = self._next()
        size = self._room(arguments)
        if size < self._least:  # the answer so far is long
            self._shorten_answer()
            arguments = self._next()
            size = self._room(arguments)
        part, rest = _cut(self._lm.tokenizer, self._rest, max(size, self._least))
        if not rest:
            return None
        self._rest = rest
        return {**arguments, self._name: arguments[self._name] + part}

    def last(self) -> dict[str, Any]:
        """Return the arguments of the last call."""
        if not self._rest:
            return self._arguments
        arguments = self._next()
        return {**arguments, self._name: arguments[self._name] + self._rest}

    @property
    def _least(self) -> int:
        return max(2 * _ROOM, self._lm.context_window // 16)

    def _next(self) -> dict[str, Any]:
        """Return the arguments of the next call, without the next part of the context."""
        if self.answer is None:
            return {**self._arguments, self._name: self._markers}
        if "existing_answer" in self._template().template_vars:
            return {**self._arguments, self._name: self._markers, "existing_answer": self.answer}
        return {**self._arguments, self._name: self._markers + _EARLIER.format(answer=self.answer)}

    def _shorten_answer(self) -> None:
        answer = self.answer or ""
        self.answer, rest = _cut(self._lm.tokenizer, answer, self._llm.spare_tokens // 2)
        if rest:
            logger.warning(
                "an answer so far of %d characters leaves no room for the rest of the context in the window of %s; its "
                "last %d characters were left out",
                len(answer),
                self._lm.name,
                len(rest),
            )

    def _room(self, arguments: dict[str, Any]) -> int:
        """Return how many tokens of context fit beside these arguments."""
        return (
            self._lm.context_window - self._llm.spare_tokens - _ROOM - self._llm.prompt_tokens(self._prompt, arguments)
        )

    def _template(self) -> BasePromptTemplate:
        return self._prompt.select(llm=self._llm) if isinstance(self._prompt, SelectorPromptTemplate) else self._prompt

    def _given(self, name: str) -> str:
        return str(self._arguments.get(name, self._template().kwargs.get(name, "")))


def _joined(value: Any) -> Any:
    return "\n\n".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value


def _starts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the character index at which each token starts; estimated for slow tokenizers."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    if tokenizer.is_fast:
        return [start for start, _ in encoded["offset_mapping"]]
    count = len(encoded["input_ids"])
    return [i * len(text) // count for i in range(count)]


def _cut(tokenizer: PreTrainedTokenizerBase, text: str, size: int) -> tuple[str, str]:
    """Split a text into a first part of at most `size` tokens and the rest, at a line, sentence or word if possible."""
    starts = _starts(tokenizer, text)
    if len(starts) <= size:
        return text, ""
    end, earliest = starts[size], starts[size * 3 // 4]
    for stop in _STOPS:
        if (found := text.rfind(stop, earliest, end)) >= 0:
            return text[: found + len(stop)], text[found + len(stop) :]
    end = max(_before_marks(text, end), 1)
    return text[:end], text[end:]


def _without_middle(tokenizer: PreTrainedTokenizerBase, text: str, size: int) -> str:
    starts = _starts(tokenizer, text)
    tail = size // 2
    end, begin = _before_marks(text, starts[size - tail]), _before_marks(text, starts[len(starts) - tail])
    return text[:end] + _GAP + text[begin:]


def _before_marks(text: str, at: int) -> int:
    """Return the index, moved back if needed so that combining marks stay with their character."""
    while 0 < at < len(text) and unicodedata.category(text[at]).startswith("M"):
        at -= 1
    return at
