"""How far the meanings of an answer's sampled continuations diverge: SeaKR's self-aware uncertainty.

Pure: NumPy and plain data; see `drafts.sampled_ends` for the samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from langgraph_dynrag.drafts.draft import Floats
from langgraph_dynrag.drafts.sampled_ends import SampledEnds


def uncertainty(ends: SampledEnds, alpha: float = 1e-3) -> float | None:
    """Return SeaKR's U of the non-empty samples; None if all are empty, which ranks as less certain than any number.

    The published code counts that case as 0, far above its threshold.
    """
    said = [i for i, text in enumerate(ends.texts) if text.strip()]
    return log_gram_determinant(np.asarray(ends.states)[said], alpha) if said else None


def log_gram_determinant(states: Floats, alpha: float = 1e-3) -> float:
    """Return `U = (1/m) log det(Z J Z^T + alpha I)` with `J = I - 11^T / d`.

    U is small if the states are similar, which means that the samples say the same. `J` subtracts from each state its
    mean over its `d` entries. m equal states `z` give `((m - 1) log alpha + log(m |Jz|^2 + alpha)) / m`, the minimum
    for m states of that length, so a threshold is only valid for a given number of samples.

    Args:
        states: Z, (m, d).
        alpha: Regularisation term that keeps the determinant from vanishing.
    """
    z = np.asarray(states, np.float64)
    centred = z - z.mean(axis=1, keepdims=True)
    sign, log_det = np.linalg.slogdet(centred @ centred.T + alpha * np.eye(len(z)))
    assert sign > 0  # the sum of a positive semi-definite matrix and a multiple of the identity
    return float(log_det) / len(z)


def total_cost(costs: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of the costs of several rounds of sampling."""
    names = dict.fromkeys(name for cost in costs for name in cost)
    return {name: sum(cost.get(name, 0) for cost in costs) for name in names}
