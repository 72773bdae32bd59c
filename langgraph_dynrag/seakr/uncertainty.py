"""How far the meanings of an answer's sampled continuations lie apart: SeaKR's self-aware uncertainty.

Pure: NumPy and plain data; see `drafts.sampled_ends` for the samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from langgraph_dynrag.drafts.draft import Floats
from langgraph_dynrag.drafts.sampled_ends import SampledEnds


def uncertainty(ends: SampledEnds, alpha: float = 1e-3) -> float | None:
    """SeaKR's U of the samples that say something; None if none of them does, which is less certain than any number.

    The published code counts that case as 0, far above its threshold.
    """
    said = [i for i, text in enumerate(ends.texts) if text.strip()]
    return log_gram_determinant(np.asarray(ends.states)[said], alpha) if said else None


def log_gram_determinant(states: Floats, alpha: float = 1e-3) -> float:
    """`U = (1/m) log det(Z J Z^T + alpha I)` with `J = I - 11^T / d`.

    Small where the states are alike: the samples say the same. `J` subtracts each state's own mean over its `d`
    numbers. m equal states `z` give `((m - 1) log alpha + log(m |Jz|^2 + alpha)) / m`, the least that m states of that
    length can have: a threshold belongs to a number of samples.

    Args:
        states: Z, (m, d).
        alpha: What keeps the determinant from vanishing.
    """
    z = np.asarray(states, np.float64)
    centred = z - z.mean(axis=1, keepdims=True)
    sign, log_det = np.linalg.slogdet(centred @ centred.T + alpha * np.eye(len(z)))
    assert sign > 0  # the sum of a positive semi-definite matrix and a multiple of the identity
    return float(log_det) / len(z)


def total_cost(costs: list[Mapping[str, float]]) -> dict[str, float]:
    """Several samplings' costs added up."""
    names = dict.fromkeys(name for cost in costs for name in cost)
    return {name: sum(cost.get(name, 0) for cost in costs) for name in names}
