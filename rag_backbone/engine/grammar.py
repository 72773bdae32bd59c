"""Generation constrained by a grammar: llguidance reports the allowed tokens at every step.

The library is imported when a grammar is first used. Grammars are written in its dialect of Lark, in which `%json`
followed by a schema (see `json_schema`) stands for JSON. Knows nothing of chats and tools.
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

_INSTALL = "schema-constrained output needs the library llguidance: pip install 'dynprag[structured]'"


def check_schema(schema: Any, owner: str) -> None:
    """Refuse a JSON schema that generation cannot be constrained to.

    Args:
        schema: The value given as a schema.
        owner: The argument or object it belongs to, for the message: `"response_format"`.

    Raises:
        ConfigurationError: With the library's reason; or if the library is not installed.
    """
    if not isinstance(schema, dict):
        raise ConfigurationError(f"{owner}: the JSON schema is {shown(schema)}; a dict is needed")
    try:
        text = compiled_schema(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{owner}: the JSON schema is not plain JSON: {clause(error)}") from error
    reason = _refusal(text)
    if reason is not None:
        raise ConfigurationError(
            f"{owner}: output cannot be constrained to this JSON schema: {reason}. Remove or replace that part of it."
        )


class Grammar:
    """A constraint (see `sampling`) defined by a grammar.

    Args:
        text: The grammar.
        tokenizer: The model's tokenizer, which must be a fast one.
        end_ids: The tokens that end a text.

    Raises:
        ConfigurationError: If the library is not installed, does not support the tokenizer, or refuses the grammar.
    """

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase, end_ids: frozenset[int]) -> None:
        self._start = _compiled(text, _vocabulary(tokenizer, len(tokenizer), end_ids))

    def begin(self) -> _GrammarFilter:
        """Return a fresh filter for one generation."""
        return _GrammarFilter(self._start.deep_copy())


class _GrammarFilter:
    """Implements `sampling.TokenFilter`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        return self._matcher.is_stopped()

    def allowed(self, logits: Tensor) -> Tensor:
        import numpy as np
        import torch

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        # A model may have more or fewer outputs than its tokenizer has tokens.
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
        reason = self._matcher.get_error() or "none of the model's tokens is allowed next"
        raise ConfigurationError(f"the output can no longer follow its schema: {clause(reason)}")


def _library() -> Any:
    try:
        import llguidance
        import llguidance.hf
    except ImportError as error:
        raise ConfigurationError(_INSTALL) from error
    return llguidance


@functools.lru_cache(maxsize=64)
def _refusal(text: str) -> str | None:
    """Return why the library refuses a schema; None if it accepts it."""
    matcher = _library().LLMatcher
    refused, said = matcher.validate_grammar_with_warnings(matcher.grammar_from_json_schema(text))
    if refused:
        return clause(said[0])
    for warning in said:
        logger.warning("JSON schema: %s", warning)
    return None


@functools.lru_cache(maxsize=4)
def _vocabulary(tokenizer: PreTrainedTokenizerBase, size: int, end_ids: frozenset[int]) -> LLTokenizer:
    """Return the library's view of a tokenizer with `size` tokens; takes up to a second."""
    library = _library()
    ends = sorted(i for i in end_ids if i < size)
    try:
        return library.hf.from_tokenizer(tokenizer, eos_token=ends or None)
    except Exception as error:  # the library raises whatever its tokenizer parser raises
        name = tokenizer.name_or_path or type(tokenizer).__name__
        raise ConfigurationError(
            f"schema-constrained output is not possible with the tokenizer of {name}: {clause(error)}"
        ) from error


@functools.lru_cache(maxsize=16)
def _compiled(text: str, vocabulary: LLTokenizer) -> LLMatcher:
    """Return a matcher in its initial state, to be copied but never advanced."""
    matcher: LLMatcher = _library().LLMatcher(vocabulary, text, log_level=0)
    if matcher.is_error():
        raise ConfigurationError(f"output cannot be constrained to this grammar: {clause(matcher.get_error())}")
    return matcher
