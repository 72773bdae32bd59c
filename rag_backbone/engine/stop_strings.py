"""Incremental detokenisation during generation, and stopping at strings.

A stop string may end in the middle of a token and may begin several tokens earlier, so tokens whose text could still
turn out to be the beginning of a stop string are held back until that is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_backbone.engine.signals import TokenStep
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"
_CONTEXT = 6  # prompt tokens that keep the decoder from treating the first new token as the start of a text


class Detokenizer:
    """Turns a growing sequence of ids into text piece by piece; special tokens have no text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._start = 0
        self._read = len(self._ids)

    def push(self, token_id: int) -> str:
        """Return the characters completed by `token_id`; empty while a character's bytes are incomplete."""
        self._ids.append(token_id)
        known = self._decode(self._ids[self._start : self._read])
        text = self._decode(self._ids[self._start :])
        if text.endswith(_REPLACEMENT) or len(text) <= len(known):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return text[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class StopStrings:
    """Passes token steps on as soon as no stop string can begin in them."""

    def __init__(self, stop: Sequence[str]) -> None:
        if any(not s for s in stop):
            raise ConfigurationError("a stop string is empty; every text contains it")
        self._stop = tuple(stop)
        self._held: list[TokenStep] = []
        self.found: str | None = None
        """The stop string that was met."""

    def push(self, step: TokenStep) -> list[TokenStep]:
        """Add a step and return the steps that are now final. Once `found` is set, they are the last ones."""
        if not self._stop:
            return [step]
        self._held.append(step)
        text = "".join(s.text for s in self._held)
        begins = [(at, s) for s in self._stop if (at := text.find(s)) >= 0]
        if begins:
            at, self.found = min(begins, key=lambda pair: (pair[0], -len(pair[1])))
            return _cut(self._held, at)
        undecided = max(_overlap(text, s) for s in self._stop)
        return self._release(len(text) - undecided)

    def flush(self) -> list[TokenStep]:
        """Return the steps that were held back, when the text ends without a stop string."""
        steps, self._held = self._held, []
        return steps

    def _release(self, characters: int) -> list[TokenStep]:
        end = taken = 0
        while taken < len(self._held) and end + len(self._held[taken].text) <= characters:
            end += len(self._held[taken].text)
            taken += 1
        steps, self._held = self._held[:taken], self._held[taken:]
        return steps


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper prefix of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _cut(steps: Sequence[TokenStep], characters: int) -> list[TokenStep]:
    kept: list[TokenStep] = []
    for step in steps:
        if characters <= 0:
            break
        kept.append(replace(step, text=step.text[:characters]))
        characters -= len(step.text)
    return kept
