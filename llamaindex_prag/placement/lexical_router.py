"""Scores passages by their retrieval scores and by the words that they share with the question."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.routing import RoutingScores
from rag_backbone.logger_levels import level_kept
from rag_backbone.text.units import search_words

with level_kept("bm25s"):
    import bm25s


class LexicalRouter:
    """Adds standardised retrieval scores and BM25 scores of the passages.

        score_i = z(retrieval)_i + z(BM25)_i,    z(x)_i = (x_i - mean x) / std x

    BM25 (Robertson & Zaragoza 2009, in Lucene's variant, k1 = 1.5, b = 0.75) counts document frequencies among the
    retrieved passages, so that words which all of them share decide nothing. Scores that are missing, or equal for all
    passages, add 0.
    """

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
        return RoutingScores(tuple((standardised(of_retrieval) + standardised(words)).tolist()))


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
