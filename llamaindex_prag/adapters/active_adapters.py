"""Select the adapters of a call, weigh them, and merge them.

    update of a layer:  sum_i w_i s_i B_i A_i

- `sum`: w_i = 1, as PRAG concatenates adapters (section 3.3). The update grows with their number.
- `mean`: w_i = 1 / k, the mean of the updates. The default: sums of many adapters break the model.
- `score`: w_i = score_i / sum of scores, for non-negative retrieval scores.
- `orthogonal`: the mean, after removing from each `B_i` what lies in the column space of the earlier ones
  (Gram-Schmidt on the updates' outputs), so that what all documents share is not added k times.
- `shared_once`: the sum, with the part `C` that all adapters start from (`Recipe.start`) taken out of each and added
  once: C + sum_i (s_i B_i A_i - C) = sum_i s_i B_i A_i - (k - 1) C. The part is one more active adapter, of weight
  1 - k.

`A` and `B` are never averaged separately: (mean B)(mean A) contains the cross terms B_i A_j.

TIES and DARE are left out. They are defined on the updates, so they need every B_i A_i as a dense matrix and a singular
value decomposition of the result per layer, which takes seconds per query instead of a millisecond; and truncating the
result to rank k r departs from their definition. A comparison on document adapters found them within about a point of
the mean (Amazon, "Where Should a Document Live", five documents).
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
    from rag_backbone.engine.adapters import ActsFrom

BESIDE_TEXT = 0.1
"""Strength of adapters whose passages are also in the prompt. Of the values tried, this one lowered the score on no
file of training questions (docs/results-parametric.md); stronger adapters disturb the reading of long passages."""
Merge = Literal["mean", "sum", "score", "orthogonal", "shared_once"]


@dataclass(frozen=True, slots=True)
class ActiveAdapters:
    """The active adapters of one call; implements the engine's `AdapterSet`.

    Build it with `ActiveAdapters.of`. Equal instances change the model in the same way.
    """

    keys: tuple[AdapterKey, ...]
    """The adapters; with `merge="shared_once"`, the last one of several is the shared part."""
    weights: tuple[float, ...]
    orthogonal: bool = False
    version: int = 0
    """The store's change counter at selection time: after an adapter is replaced, the cache key differs."""
    acts_from: ActsFrom = "prompt"
    """Where the adapters begin to act, as their recipe says."""

    @classmethod
    def of(
        cls,
        keys: Sequence[AdapterKey],
        *,
        merge: Merge = "mean",
        scores: Sequence[float] | None = None,
        strength: float | Sequence[float] = 1.0,
        shared: AdapterKey | None = None,
        version: int = 0,
        acts_from: ActsFrom = "prompt",
    ) -> ActiveAdapters:
        """Select adapters; a key that occurs twice counts once, with the higher score and strength.

        Args:
            keys: Adapter keys, best first.
            merge: How the updates are combined.
            scores: The retrieval scores, for `merge="score"`.
            strength: A factor for all weights, or one per adapter. The shared part has the largest one.
            shared: The shared part, for `merge="shared_once"` with more than one adapter.
            version: The store's change counter.
            acts_from: Where the adapters begin to act; the recipe's `acts_from`.

        Raises:
            AdapterError: If `keys` is empty, or the number or values of scores or strengths do not fit.
            ConfigurationError: If `merge` is unknown or `strength` is not a finite number above 0.
        """
        if merge not in get_args(Merge):
            raise ConfigurationError(f"merge is {merge!r}; known: {', '.join(get_args(Merge))}")
        if not keys:
            raise AdapterError("no adapter was selected; at least one is needed")
        strengths = [float(strength)] * len(keys) if isinstance(strength, int | float) else list(strength)
        if len(strengths) != len(keys):
            raise AdapterError(f"{len(strengths)} strengths for {len(keys)} adapters; give one, or one per adapter")
        if not all(math.isfinite(s) and s >= 0 for s in strengths) or max(strengths) == 0:
            raise ConfigurationError(f"strength is {strength}; it must be a finite number above 0")
        if scores is not None and len(scores) != len(keys):
            raise AdapterError(f"{len(scores)} scores for {len(keys)} adapters; give one per adapter")
        if merge == "score" and scores is None:
            raise AdapterError("merge='score' needs the retrieval scores of the adapters")
        given: dict[AdapterKey, float] = {}
        strongest: dict[AdapterKey, float] = {}
        for key, score, each in zip(keys, scores or [1.0] * len(keys), strengths, strict=True):
            given[key] = max(given.get(key, score), score)
            strongest[key] = max(strongest.get(key, each), each)
        members, shares = tuple(given), _weights(merge, tuple(given.values()))
        weights = tuple(w * s for w, s in zip(shares, strongest.values(), strict=True))
        if merge == "shared_once" and len(members) > 1:
            if shared is None:
                raise AdapterError("merge='shared_once' needs the shared part of the adapters")
            members, weights = (*members, shared), (*weights, max(weights) - sum(weights))
        return cls(members, weights, merge == "orthogonal", version, acts_from)

    def times(self, part: float) -> ActiveAdapters:
        """Return a copy with every weight multiplied by `part`."""
        return replace(self, weights=tuple(part * w for w in self.weights))

    def alone(self) -> list[ActiveAdapters]:
        """Return a selection of each adapter alone, with its weight in this one."""
        return [
            replace(self, keys=(key,), weights=(weight,), orthogonal=False)
            for key, weight in zip(self.keys, self.weights, strict=True)
        ]

    @property
    def cache_key(self) -> Hashable:
        """Everything that determines the adapted weights: members, weights, merge, and the store's version."""
        return (tuple(k.digest for k in self.keys), self.weights, self.orthogonal, self.version)

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        members = ", ".join(f"{k.text[:8]} × {w:.3g}" for k, w in zip(self.keys, self.weights, strict=True))
        return f"ActiveAdapters({members}{', orthogonal' if self.orthogonal else ''})"


def _weights(merge: Merge, scores: tuple[float, ...]) -> tuple[float, ...]:
    k = len(scores)
    if merge in ("sum", "shared_once"):
        return (1.0,) * k
    if merge != "score":
        return (1.0 / k,) * k
    total = sum(scores)
    if any(not math.isfinite(s) or s < 0 for s in scores) or total <= 0:
        raise AdapterError(f"merge='score' needs finite, non-negative scores that are not all 0; they are {scores}")
    return tuple(s / total for s in scores)


def weigh(
    layout: Layout, selection: ActiveAdapters, buffers: Sequence[NDArray[np.float32]], scales: Sequence[float]
) -> None:
    """Multiply each adapter's `B'` by its weight and scale, in place.

    Args:
        layout: The layout of all buffers.
        selection: Provides the weights, and says whether the updates are made orthogonal.
        buffers: (layout.size,) float32 each, in the selection's order.
        scales: The factor of each adapter's `B A`.
    """
    import numpy as np

    for weight, scale, buffer in zip(selection.weights, scales, buffers, strict=True):
        buffer[layout.a_size :] *= np.float32(weight * scale)
    if selection.orthogonal and len(buffers) > 1:
        orthogonalise(layout, buffers)


def orthogonalise(layout: Layout, buffers: Sequence[NDArray[np.float32]]) -> None:
    """Remove from each adapter's outputs the column space of the earlier ones, in place.

    `B_i <- (I - Q Q^T) B_i`, where the columns of `Q` span those of `B_1 ... B_{i-1}`, layer by layer.

    Args:
        layout: The layout of all buffers.
        buffers: (layout.size,) float32 each, most important first.
    """
    import numpy as np

    for target, offset in zip(layout.targets, layout.b_offsets, strict=True):
        basis = np.zeros((target.outputs, 0), np.float32)
        for buffer in buffers:
            b = buffer[offset : offset + layout.rank * target.outputs].reshape(layout.rank, target.outputs)
            before = np.linalg.norm(b)
            b -= (b @ basis) @ basis.T
            left, values, _ = np.linalg.svd(b.T, full_matrices=False)
            # The residue along directions that are already covered is rounding error and must not become a direction.
            basis = np.concatenate([basis, left[:, values > 1e-5 * max(float(before), 1e-30)]], axis=1)
