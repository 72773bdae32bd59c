"""SeaKR's query (Yao et al. 2024): the tentative sentence without the words that the model was uncertain of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from rag_backbone.text.units import sentences, words
from rag_backbone.typed_fields import Probability

# Words that announce an answer and carry no content (the published code's list).
_ANNOUNCING = frozenset({"thus", "answer", "is", "so"})


@dataclass(frozen=True)
class KnownWords(BaseFormulator):
    """The sentence's known content words: in the question or the previous sentence, or generated with confidence.

    A word is generated with confidence if the doubt (one minus the probability) of all its tokens is at most
    `max_doubt`. Without any such word, the query is the question's content words. The published code selects words by
    part of speech; here the graph's word filter decides which words carry content.

    Raises:
        ConfigurationError: If `max_doubt` is not a probability.
    """

    max_doubt: Probability = 0.1

    needs = frozenset({"logprob"})

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the known words in order."""
        unit, known = view.unit, _words_of(view.question) | _words_of(_last_sentence(view.accepted))
        kept = [
            word
            for w, (word, content) in enumerate(zip(unit.words, view.carries_content(unit.words), strict=True))
            if content
            and word.lower() not in _ANNOUNCING
            and (word.lower() in known or self._confident([unit.logprobs[t] for t in unit.tokens_of_word(w)]))
        ]
        return QueryPlan((" ".join(kept or _content(view)) or view.question,))

    def _confident(self, logprobs: Sequence[float]) -> bool:
        return all(1 - math.exp(logprob) <= self.max_doubt for logprob in logprobs)


def _content(view: DraftView) -> list[str]:
    asked = [view.question[s.start : s.end] for s in words(view.question)]
    return [word for word, content in zip(asked, view.carries_content(asked), strict=True) if content]


def _words_of(text: str) -> set[str]:
    return {text[s.start : s.end].lower() for s in words(text)}


def _last_sentence(text: str) -> str:
    spans = sentences(text)
    return text[spans[-1].start : spans[-1].end] if spans else ""
