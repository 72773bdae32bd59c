"""Ensembles of documents: each adapter answers alone, and their next-token distributions are mixed.

The weights are the softmax of the documents' retrieval scores, as in REPLUG (Shi et al. 2023, arXiv 2301.12652, section
3.2), or equal. How distributions are mixed is the engine's part (`rag_backbone.engine.ensemble`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import AdapterKey
from rag_backbone.engine.adapters import Ensemble
from rag_backbone.engine.ensemble import AdapterEnsemble
from rag_backbone.errors import AdapterError

_NEGLIGIBLE = 1e-9
"""Weight below which a member cannot change a float32 distribution, and is left out."""


def ensemble_of(
    selection: ActiveAdapters,
    keys: Sequence[AdapterKey],
    *,
    kind: Ensemble = "mixture",
    scores: Sequence[float] | None = None,
) -> AdapterEnsemble:
    """Return the ensemble of a selection's adapters, each at the strength that it has in the selection.

    Args:
        selection: The adapters, with their strengths as weights (`merge="sum"`).
        keys: Keys in the order of the scores; of a repeated key the highest score counts.
        kind: How the distributions are mixed.
        scores: The retrieval scores; None for equal weights.

    Raises:
        AdapterError: If the number of scores does not fit, or a score is not finite.
        ConfigurationError: If the kind is unknown.
    """
    weights = (1 / len(selection),) * len(selection)
    if scores is not None:
        if len(scores) != len(keys) or not all(map(math.isfinite, scores)):
            raise AdapterError(f"the scores of {len(keys)} adapters are {list(scores)}; give a finite one per adapter")
        best: dict[AdapterKey, float] = {}
        for key, score in zip(keys, scores, strict=True):
            best[key] = max(best.get(key, score), score)
        weights = softmax([best[key] for key in selection.keys])
    members = [(one, w) for one, w in zip(selection.alone(), weights, strict=True) if w > _NEGLIGIBLE]
    return AdapterEnsemble(tuple(one for one, _ in members), tuple(w for _, w in members), kind)


def softmax(scores: Sequence[float]) -> tuple[float, ...]:
    """Return exp(s_i) / sum_j exp(s_j)."""
    raised = [math.exp(score - max(scores)) for score in scores]
    return tuple(value / sum(raised) for value in raised)
