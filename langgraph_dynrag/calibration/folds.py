"""Folds of whole questions, for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for


class TooFewPointsError(ConfigurationError):
    """There are too few labelled sentences, or all have the same label, so that nothing can be learned from them."""


def folds_of(groups: Sequence[int], folds: int) -> NDArray[np.int64]:
    """Return the fold of each point, (points,), with all points of a group in the same one."""
    with needed_for("a learned trigger"):
        from sklearn.model_selection import GroupKFold

    found = np.zeros(len(groups), np.int64)
    split = GroupKFold(min(folds, len(set(groups)))).split(found, groups=groups)
    for fold, (_, held_out) in enumerate(split):
        found[held_out] = fold
    return found
