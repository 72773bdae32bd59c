"""Which adapters a call runs with, how strongly, and how they are merged.

    update of a layer:  sum_i w_i s_i B_i A_i

- `sum`: w_i = 1, as PRAG concatenates adapters (section 3.3). The update grows with their number.
- `mean`: w_i = 1 / k, the mean of the updates. The default: sums of many adapters break the model.
- `score`: w_i = score_i / sum of scores, for retrieval scores that are not negative.
- `orthogonal`: the mean, each `B_i` first cleared of what lies in the column space of the earlier ones
  (Gram-Schmidt on the updates' outputs), so that what all documents share is not added k times.

Never the mean of `A` and `B` separately: (mean B)(mean A) holds the cross terms B_i A_j.

TIES and DARE are left out. On the updates, which is where they mean something, they need every B_i A_i as a dense
matrix and a singular value decomposition of their result for each layer: seconds a query in the place of a millisecond,
and what is truncated to rank k r is not what they define. Where they were compared on adapters of documents they agreed
with the mean within about a point (Amazon, "Where Should a Document Live", five documents).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from llamaindex_prag.adapters.adapter import AdapterKey
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.layout import Layout

BESIDE_TEXT = 0.1
"""Strength of adapters whose passages also stand in the prompt: of those tried, the one that took nothing away on any
file of training questions (docs/results-parametric.md). Stronger ones disturb the reading of long passages."""
Merge = Literal["mean", "sum", "score", "orthogonal"]


@dataclass(frozen=True, slots=True)
class ActiveAdapters:
    """The adapters of one call: an `AdapterSet` of the engine.

    Build it with `ActiveAdapters.of`; equal selections change the model in the same way.
    """

    keys: tuple[AdapterKey, ...]
    weights: tuple[float, ...]
    orthogonal: bool = False
    version: int = 0
    """The store's change counter when the selection was made: values that were replaced since have another key."""

    @classmethod
    def of(
        cls,
        keys: Sequence[AdapterKey],
        *,
        merge: Merge = "mean",
        scores: Sequence[float] | None = None,
        strength: float | Sequence[float] = 1.0,
        version: int = 0,
    ) -> ActiveAdapters:
        """Select adapters; a key that occurs twice counts once, with the higher score and strength.

        Args:
            keys: Best first.
            merge: How their updates are combined.
            scores: The retrieval scores, for `merge="score"`.
            strength: Multiplies every weight, or one number for each.
            version: The store's change counter.

        Raises:
            AdapterError: If there is none, or the scores do not fit.
            ConfigurationError: If `merge` or `strength` is not possible.
        """
        if merge not in get_args(Merge):
            raise ConfigurationError(f"merge is {merge!r}; known: {', '.join(get_args(Merge))}")
        if not keys:
            raise AdapterError("no adapter was selected; at least one is needed")
        strengths = [float(strength)] * len(keys) if isinstance(strength, int | float) else list(strength)
        if len(strengths) != len(keys):
            raise AdapterError(f"{len(strengths)} strengths for {len(keys)} adapters")
        if not all(math.isfinite(s) and s >= 0 for s in strengths) or max(strengths) == 0:
            raise ConfigurationError(f"strength is {strength}; it must be a finite number above 0")
        if scores is not None and len(scores) != len(keys):
            raise AdapterError(f"{len(scores)} scores for {len(keys)} adapters")
        if merge == "score" and scores is None:
            raise AdapterError("merge='score' needs the retrieval scores of the adapters")
        given: dict[AdapterKey, float] = {}
        strongest: dict[AdapterKey, float] = {}
        for key, score, each in zip(keys, scores or [1.0] * len(keys), strengths, strict=True):
            given[key] = max(given.get(key, score), score)
            strongest[key] = max(strongest.get(key, each), each)
        weights = zip(_weights(merge, tuple(given.values())), strongest.values(), strict=True)
        return cls(tuple(given), tuple(w * s for w, s in weights), merge == "orthogonal", version)

    def times(self, part: float) -> ActiveAdapters:
        """The same, so much stronger or weaker."""
        return replace(self, weights=tuple(part * w for w in self.weights))

    @property
    def cache_key(self) -> Hashable:
        """What decides the model's weights: members, weights, merge, and the store's version."""
        return (tuple(k.digest for k in self.keys), self.weights, self.orthogonal, self.version)

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        members = ", ".join(f"{k.text[:8]} × {w:.3g}" for k, w in zip(self.keys, self.weights, strict=True))
        return f"Selection({members}{', orthogonal' if self.orthogonal else ''})"


def _weights(merge: Merge, scores: tuple[float, ...]) -> tuple[float, ...]:
    k = len(scores)
    if merge == "sum":
        return (1.0,) * k
    if merge != "score":
        return (1.0 / k,) * k
    total = sum(scores)
    if any(not math.isfinite(s) or s < 0 for s in scores) or total <= 0:
        raise AdapterError(f"merge='score' needs finite scores that are not negative and not all 0; they are {scores}")
    return tuple(s / total for s in scores)


def weigh(
    layout: Layout, selection: ActiveAdapters, buffers: Sequence[NDArray[np.float32]], scales: Sequence[float]
) -> None:
    """Make adapters what a selection adds of them: each `B'` times weight and scale, in place.

    Args:
        layout: Of all buffers.
        selection: Names the weights, and whether the updates are made orthogonal.
        buffers: (layout.size,) float32 each, in the selection's order.
        scales: What multiplies each adapter's `B A`.
    """
    import numpy as np

    for weight, scale, buffer in zip(selection.weights, scales, buffers, strict=True):
        buffer[layout.a_size :] *= np.float32(weight * scale)
    if selection.orthogonal and len(buffers) > 1:
        orthogonalise(layout, buffers)


def orthogonalise(layout: Layout, buffers: Sequence[NDArray[np.float32]]) -> None:
    """Clear each adapter's outputs of the column space of the earlier ones, in place.

    `B_i <- (I - Q Q^T) B_i`, where the columns of `Q` span those of `B_1 ... B_{i-1}`, layer by layer.

    Args:
        layout: Of all buffers.
        buffers: (layout.size,) float32 each, in order of importance.
    """
    import numpy as np

    for target, offset in zip(layout.targets, layout.b_offsets, strict=True):
        basis = np.zeros((target.outputs, 0), np.float32)
        for buffer in buffers:
            b = buffer[offset : offset + layout.rank * target.outputs].reshape(layout.rank, target.outputs)
            before = np.linalg.norm(b)
            b -= (b @ basis) @ basis.T
            left, values, _ = np.linalg.svd(b.T, full_matrices=False)
            # What is left of directions already covered is rounding, and must not become a direction of its own.
            basis = np.concatenate([basis, left[:, values > 1e-5 * max(float(before), 1e-30)]], axis=1)
