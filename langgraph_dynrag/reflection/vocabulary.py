"""The reflection tokens of a model trained with them (Self-RAG, table 1), looked up in its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from langgraph_dynrag.reflection.scores import RELEVANCE, RETRIEVAL, SUPPORT, UTILITY
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.special_tokens import neutralised

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rag_backbone.loading.causal_lm import CausalLM

_RETRIEVAL = dict(zip(RETRIEVAL, ("[Retrieval]", "[No Retrieval]", "[Continue to Use Evidence]"), strict=True))
_RELEVANCE = dict(zip(RELEVANCE, ("[Relevant]", "[Irrelevant]"), strict=True))
_SUPPORT = dict(
    zip(SUPPORT, ("[Fully supported]", "[Partially supported]", "[No support / Contradictory]"), strict=True)
)
_UTILITY = {name: f"[Utility:{name}]" for name in UTILITY}
_MARKS = {"open": "<paragraph>", "close": "</paragraph>"}
TOKENS = (*_RETRIEVAL.values(), *_RELEVANCE.values(), *_SUPPORT.values(), *_UTILITY.values(), *_MARKS.values())
"""All reflection tokens and marks, as published."""


@dataclass(frozen=True)
class ReflectionVocabulary:
    """Token ids by meaning."""

    retrieval: Mapping[str, int]
    relevance: Mapping[str, int]
    support: Mapping[str, int]
    utility: Mapping[str, int]
    marks: Mapping[str, int]
    """The `open` and `close` marks of a paragraph."""

    @classmethod
    def of(cls, lm: CausalLM) -> ReflectionVocabulary:
        """Return the vocabulary of a model.

        Raises:
            ConfigurationError: If any token is missing; the message lists the missing ones.
        """
        found = find(lm)
        if missing := [token for token in TOKENS if token not in found]:
            raise ConfigurationError(
                f"{lm.name} lacks {len(missing)} of {len(TOKENS)} reflection tokens: {', '.join(missing)}. Use a model "
                "that was trained with all of them, with its own tokenizer and as many embeddings; or ask the model "
                "instead: selection=SegmentSelection('classification')."
            )
        groups = (_RETRIEVAL, _RELEVANCE, _SUPPORT, _UTILITY, _MARKS)
        return cls(*({name: found[token] for name, token in group.items()} for group in groups))

    @cached_property
    def ids(self) -> frozenset[int]:
        """The ids of all tokens."""
        groups = (self.retrieval, self.relevance, self.support, self.utility, self.marks)
        return frozenset(i for group in groups for i in group.values())

    @cached_property
    def judged(self) -> tuple[int, ...]:
        """Ids of the tokens whose probabilities judge a segment: relevance, support, utility."""
        return (*self.relevance.values(), *self.support.values(), *self.utility.values())


def find(lm: CausalLM) -> dict[str, int]:
    """Return the reflection tokens that a model has as single tokens with an output."""
    tokenizer = lm.tokenizer
    head = lm.model.get_output_embeddings()
    outputs = lm.model.config.vocab_size if head is None else head.weight.shape[0]
    found = {}
    for token in TOKENS:
        i = tokenizer.convert_tokens_to_ids(token)
        # Tokenizers return the unknown token's id, or None, for tokens they lack.
        if isinstance(i, int) and i < outputs and tokenizer.convert_ids_to_tokens(i) == token:
            found[token] = i
    return found


def harmless(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Neutralise all control and reflection tokens in text that comes from users or documents."""
    for token in TOKENS:
        # Even if the tokenizer does not count them as special, it would read them as these tokens.
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return neutralised(tokenizer, text)
