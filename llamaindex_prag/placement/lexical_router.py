"""Scores passages by their retrieval scores and by the words that they share with the question.

If no passage has a sentence that names what is asked for, none may act: the adapter of a passage that does not answer
the question is worse than no adapter (docs/results-parametric.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.routing import RoutingScores
from rag_backbone.errors import ConfigurationError
from rag_backbone.logger_levels import level_kept
from rag_backbone.text.units import search_words, sentences

with level_kept("bm25s"):
    import bm25s

BOUND = 0.25
"""Probability that the best passage answers the question below which no passage acts. On MuSiQue's train file, it lets
a passage act for 0.94 of the questions if the right one is among the five candidates, and for 0.42 if it is not."""
_BIAS, _COVERED = -2.96, 6.86
"""Logistic regression on questions about single passages of MuSiQue's train file (`python -m benchmarks.routing
--fit`)."""
_NO_COMMON_WORD = (
    "no passage has a word in common with the question; if they are in different languages, route='retrieval' chooses "
    "by the retrieval scores"
)


class LexicalRouter:
    """Adds standardised retrieval scores and BM25 scores of the passages.

        score_i = z(retrieval)_i + z(BM25)_i,    z(x)_i = (x_i - mean x) / std x

    BM25 (Robertson & Zaragoza 2009, in Lucene's variant, k1 = 1.5, b = 0.75) counts document frequencies among the
    retrieved passages, so that words which all of them share decide nothing. Scores that are missing, or equal for all
    passages, add 0.

    The probability that the best-scored passage answers the question is estimated from the largest share c of the
    question's words that one of its sentences contains:

        p = 1 / (1 + exp(2.96 - 6.86 c))

    Args:
        bound: Probability from 0 to 1 below which no passage may act; 0 lets the best one always act.
    """

    def __init__(self, *, bound: float = BOUND) -> None:
        if not 0 <= bound <= 1:
            raise ConfigurationError(f"bound is {bound}; it is a probability, from 0 to 1")
        self._bound = bound

    def scores(
        self,
        question: str,
        candidates: Sequence[Candidate],
        keys: Sequence[AdapterKey | None],  # noqa: ARG002
    ) -> RoutingScores:
        """Return the sums; see `Router`."""
        retrieved = [c.score for c in candidates]
        given = [s for s in retrieved if s is not None and math.isfinite(s)]
        of_retrieval = np.array(given) if len(given) == len(candidates) else np.zeros(len(candidates))
        words = bm25_scores(question, [f"{c.title}\n{c.text}" for c in candidates])
        scores = standardised(of_retrieval) + standardised(words)
        refused = ""
        if candidates and not words.any():
            refused = _NO_COMMON_WORD if self._bound else ""
        elif candidates and (probability := answering(question, candidates[int(scores.argmax())])) < self._bound:
            refused = (
                f"by their common words, the best passage answers the question with a probability of {probability:.2f} "
                f"only (bound {self._bound:g})"
            )
        return RoutingScores(tuple(scores.tolist()), refused=refused)


def answering(question: str, candidate: Candidate) -> float:
    """Return the estimated probability that a passage answers the question; see `LexicalRouter`."""
    return 1 / (1 + math.exp(-(_BIAS + _COVERED * coverage(question, candidate))))


def coverage(question: str, candidate: Candidate) -> float:
    """Return the largest share of the question's words in one sentence of a passage, to which its title is added."""
    wanted = set(search_words(question, indexing=False))
    title = set(search_words(candidate.title, indexing=True))
    told = [candidate.text[s.start : s.end] for s in sentences(candidate.text)]
    shared = [len(wanted & (title | set(search_words(sentence, indexing=True)))) for sentence in told]
    return max(shared, default=0) / max(len(wanted), 1)


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (x - mean) / standard deviation; zeros if all values are equal."""
    spread = values.std() if len(values) else 0.0
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros_like(values)


def bm25_scores(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the BM25 score of each text, (texts,), with document frequencies among these texts."""
    wanted = search_words(question, indexing=False)
    indexed = [search_words(text, indexing=True) for text in texts]
    known = {term for terms in indexed for term in terms}
    if not (wanted := [term for term in wanted if term in known]):
        return np.zeros(len(texts))
    index = bm25s.BM25()
    index.index(indexed, show_progress=False)
    return np.asarray(index.get_scores(wanted), np.float64)
