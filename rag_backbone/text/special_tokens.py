"""Breaks up control tokens in text from users and documents, so that they stay text."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def neutralised(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return the text with a space inside every string that the tokenizer would treat as a control token.

    Nearly all text passes through here before tokenisation, so lone surrogates, which no tokenizer accepts, are
    repaired here as well.
    """
    text = clean_text(text, "a text for the model")
    for special in _special_strings(tokenizer):
        if special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text


@functools.lru_cache(maxsize=16)
def _special_strings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    found = {s for s in [*added, *tokenizer.all_special_tokens] if len(s) > 1 and s.strip()}
    return tuple(sorted(found, key=len, reverse=True))
