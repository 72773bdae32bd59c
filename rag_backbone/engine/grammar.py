"""Generations that follow a grammar: llguidance tells at every token which ones may come next.

The library is imported when a grammar is first used. A grammar is in its dialect of Lark, in which `%json` and a schema
(see `json_schema`) stand for JSON. Knows nothing of chats and tools.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from rag_backbone.checks import clause, shown
from rag_backbone.engine.json_schema import compiled_schema
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_INSTALL = "output by a schema needs the library llguidance: pip install 'dynprag[structured]'"


def check_schema(schema: Any, owner: str) -> None:
    """Refuse a JSON schema that no generation can be held to.

    Args:
        schema: What was given for one.
        owner: What it belongs to, for the message: `"response_format"`.

    Raises:
        ConfigurationError: With the library's reason; or if the library is not installed.
    """
    if not isinstance(schema, dict):
        raise ConfigurationError(f"{owner}: the JSON schema is {shown(schema)}; a dict is needed")
    try:
        text = compiled_schema(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{owner}: the JSON schema is no plain JSON: {clause(error)}") from error
    reason = _refusal(text)
    if reason is not None:
        raise ConfigurationError(
            f"{owner}: output cannot be held to this JSON schema: {reason}. Leave out or replace that part of it."
        )


class Grammar:
    """A constraint (see `sampling`) that a grammar states.

    Args:
        text: The grammar.
        tokenizer: The model's; a fast one.
        end_ids: The tokens that end a text.

    Raises:
        ConfigurationError: If the library is not installed, does not know such a tokenizer, or refuses the grammar.
    """

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase, end_ids: frozenset[int]) -> None:
        self._start = _compiled(text, _vocabulary(tokenizer, len(tokenizer), end_ids))

    def begin(self) -> _GrammarFilter:
        """The filter of a generation of its own."""
        return _GrammarFilter(self._start.deep_copy())


class _GrammarFilter:
    """See `sampling.TokenFilter`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        return self._matcher.is_stopped()

    def allowed(self, logits: Tensor) -> Tensor:
        import numpy as np
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        # A model may have more outputs than its tokenizer has tokens, or fewer.
        mask = np.zeros(logits.shape[0], bool)
        known = np.unpackbits(bits, count=min(bits.size * 8, mask.size), bitorder="little")
        mask[: known.size] = known
        if not mask.any():
            self._refuse()
        return logits.masked_fill(~torch.from_numpy(mask).to(logits.device), -torch.inf)

    def accept(self, token_id: int) -> None:
        if not self._matcher.consume_token(token_id):
            self._refuse()

    def _refuse(self) -> None:
        reason = self._matcher.get_error() or "none of the model's tokens may come next"
        raise ConfigurationError(f"the output cannot be held to its schema any further: {clause(reason)}")


def _library() -> Any:
    try:
        import llguidance
        import llguidance.hf
    except ImportError as error:
        raise ConfigurationError(_INSTALL) from error
    return llguidance


@functools.lru_cache(maxsize=64)
def _refusal(text: str) -> str | None:
    """Why the library refuses a schema; None if it takes it."""
    matcher = _library().LLMatcher
    refused, said = matcher.validate_grammar_with_warnings(matcher.grammar_from_json_schema(text))
    if refused:
        return clause(said[0])
    for warning in said:
        logger.warning("of a JSON schema: %s", warning)
    return None


@functools.lru_cache(maxsize=4)
def _vocabulary(tokenizer: PreTrainedTokenizerBase, size: int, end_ids: frozenset[int]) -> LLTokenizer:
    """The tokenizer as the library knows it, of so many tokens; takes up to a second."""
    library = _library()
    ends = sorted(i for i in end_ids if i < size)
    try:
        return library.hf.from_tokenizer(tokenizer, eos_token=ends or None)
    except Exception as error:  # the library raises what its tokenizers' reader does
        name = tokenizer.name_or_path or type(tokenizer).__name__
        raise ConfigurationError(
            f"output by a schema is not possible with the tokenizer of {name}: {clause(error)}"
        ) from error


@functools.lru_cache(maxsize=16)
def _compiled(text: str, vocabulary: LLTokenizer) -> LLMatcher:
    """At its start; it is only copied."""
    matcher: LLMatcher = _library().LLMatcher(vocabulary, text, log_level=0)
    if matcher.is_error():
        raise ConfigurationError(f"output cannot be held to this grammar: {clause(matcher.get_error())}")
    return matcher
