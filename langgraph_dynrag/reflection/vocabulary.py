"""The reflection tokens of a model that was trained with them (Self-RAG, table 1), found in its tokenizer."""

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
"""All of them, as published."""


@dataclass(frozen=True)
class ReflectionVocabulary:
    """Token ids by meaning."""

    retrieval: Mapping[str, int]
    relevance: Mapping[str, int]
    support: Mapping[str, int]
    utility: Mapping[str, int]
    marks: Mapping[str, int]
    """`open` and `close` of a paragraph."""

    @classmethod
    def of(cls, lm: CausalLM) -> ReflectionVocabulary:
        """The vocabulary of a model.

        Raises:
            ConfigurationError: If any token is missing, listing those that are.
        """
        found = find(lm)
        if missing := [token for token in TOKENS if token not in found]:
            raise ConfigurationError(
                f"{lm.name} lacks {len(missing)} of {len(TOKENS)} reflection tokens: {', '.join(missing)}. Use a model "
                "that was trained with all of them, its own tokenizer and as many embeddings; or have the model asked "
                "instead: selection=Selection('classification')."
            )
        groups = (_RETRIEVAL, _RELEVANCE, _SUPPORT, _UTILITY, _MARKS)
        return cls(*({name: found[token] for name, token in group.items()} for group in groups))

    @cached_property
    def ids(self) -> frozenset[int]:
        """All of them."""
        groups = (self.retrieval, self.relevance, self.support, self.utility, self.marks)
        return frozenset(i for group in groups for i in group.values())

    @cached_property
    def judged(self) -> tuple[int, ...]:
        """The tokens whose probabilities judge a segment: relevance, support, utility."""
        return (*self.relevance.values(), *self.support.values(), *self.utility.values())


def find(lm: CausalLM) -> dict[str, int]:
    """The reflection tokens that a model has, each as one token that it has an output for."""
    tokenizer = lm.tokenizer
    head = lm.model.get_output_embeddings()
    outputs = lm.model.config.vocab_size if head is None else head.weight.shape[0]
    found = {}
    for token in TOKENS:
        i = tokenizer.convert_tokens_to_ids(token)
        # Tokenizers give the unknown token's id, or None, for what they lack.
        if isinstance(i, int) and i < outputs and tokenizer.convert_ids_to_tokens(i) == token:
            found[token] = i
    return found


def harmless(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Text that people or documents wrote, in which no control token and no reflection token can be read."""
    for token in TOKENS:
        # Whether or not the tokenizer counts them as special, it would take them for what they look like.
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return neutralised(tokenizer, text)
