"""The shared part of a recipe's adapters: what they have in common, which a merge should add once and not k times.

    start    the adapter that the recipe's documents were trained from (`Recipe.start`), such as a warm-up's
    mean     otherwise the mean update of the store's adapters, as its best approximation of the recipe's rank

Decoupling Knowledge and Task Subspaces (arXiv 2604.26768) keeps what belongs to the task in one adapter for all
documents, and GenKnowSub (arXiv 2505.10939) subtracts an adapter of general knowledge from each. Both change training;
here the part is taken out of adapters as they are. A mean is computed at first use and kept in the store, until one of
the adapters that it was computed from is removed. Does not need torch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.adapters.recipe import Recipe

MOST = 64
"""Maximum number of adapters in a mean, which bounds the memory that it takes. Keys are hashes, so the first ones are a
random sample."""
logger = logging.getLogger(__name__)


@runtime_checkable
class ListedStore(Protocol):
    """The part of a store that finding a shared part needs."""

    model: str

    def __contains__(self, key: object) -> bool: ...

    def keys(self) -> list[AdapterKey]:
        """Return the keys of all adapters in the store."""

    def get(self, key: AdapterKey) -> Adapter | None:
        """Return an adapter, or None."""

    def record(self, key: AdapterKey) -> dict[str, Any] | None:
        """Return how an adapter was made, or None."""

    def put(self, key: AdapterKey, adapter: Adapter, record: dict[str, Any], owners: Iterable[str] = ()) -> None:
        """Store an adapter."""


def shared_part(store: object, recipe: Recipe) -> AdapterKey:
    """Return the key of the shared part of a recipe's adapters; compute and store their mean if it is needed.

    Raises:
        ConfigurationError: If the store cannot list adapters.
        AdapterError: If no shared part can be known: the store lacks the recipe's start, or has fewer than two adapters
            of the recipe.
        StoreError: If the mean has to be stored and the store is read-only.
    """
    if not isinstance(store, ListedStore):
        raise ConfigurationError(
            f"merge='shared_once' needs a store that lists its adapters, such as LMDBStore, but {type(store).__name__} "
            "does not; use another merge"
        )
    if recipe.start:
        stored = store.keys()
        found = next((key for key in stored if key.digest == recipe.start), None)
        if found is None:
            raise AdapterError(
                f"merge='shared_once' needs the adapter {recipe.start[:12]}…, which the documents of the recipe "
                f"{recipe.name!r} start from, but the store does not hold it"
            )
        return found
    key = mean_key(store.model, recipe)
    record = store.record(key)
    if record is None or any(AdapterKey(store.model, recipe.key, text) not in store for text in record["members"]):
        _keep_mean(store, recipe, key)
    return key


def mean_key(model: str, recipe: Recipe) -> AdapterKey:
    """Return the key under which the mean of a recipe's adapters is kept; no document's adapter has its recipe."""
    made = hashlib.sha256(f"mean of {recipe.key}".encode()).hexdigest()
    return AdapterKey(model, made, text_hash("the mean of a recipe's adapters"))


def mean_update(adapters: Sequence[Adapter]) -> tuple[Adapter, float]:
    """Return the mean of the updates `s_i B_i A_i`, approximated at the adapters' rank, and how much of it that is.

    Layer by layer, the best approximation in the Frobenius norm is the truncated singular value decomposition (Eckart
    and Young 1936), computed from QR decompositions of the stacked factors, without a dense update.

    Args:
        adapters: At least one; all have the same layout.

    Returns:
        An adapter of scale 1; and the share of the mean's squared norm that is kept, from 0 to 1.
    """
    layout = adapters[0].layout
    out = np.zeros(layout.size, np.float32)
    kept = total = 0.0
    given = [list(layout.factors(adapter.buffer)) for adapter in adapters]
    for n, (_, into_a, into_b) in enumerate(layout.factors(out)):
        a = np.concatenate([factors[n][1] for factors in given]).astype(np.float64)  # (k rank, in)
        b = np.concatenate([f.scale * factors[n][2] for f, factors in zip(adapters, given, strict=True)], axis=1)
        q_b, r_b = np.linalg.qr(b.astype(np.float64) / len(adapters))  # of (out, k rank)
        q_a, r_a = np.linalg.qr(a.T)
        left, values, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
        rank = min(layout.rank, len(values))
        roots = np.sqrt(values[:rank])  # both factors of about the same size, as rounding when they are stored needs
        into_a[:rank] = roots[:, None] * (right[:rank] @ q_a.T)
        into_b[:, :rank] = (q_b @ left[:, :rank]) * roots
        kept, total = kept + float((values[:rank] ** 2).sum()), total + float((values**2).sum())
    return Adapter(layout, out, 1.0), kept / total if total else 1.0


def _keep_mean(store: ListedStore, recipe: Recipe, key: AdapterKey) -> None:
    stored = store.keys()
    known = [k for k in stored if k.recipe == recipe.key][:MOST]
    adapters = [adapter for k in known if (adapter := store.get(k)) is not None]
    if len(adapters) < 2:
        raise AdapterError(
            f"merge='shared_once' needs the part that the adapters of the recipe {recipe.name!r} share, but the recipe "
            f"has no start and the store has {len(adapters)} of its adapters; at least 2 are needed"
        )
    mean, share = mean_update(adapters)
    members = [k.text for k in known]
    record = {"members": members, "kept": share, "recipe": {"name": f"mean of {recipe.name}"}}
    store.put(key, mean, record, owners=(f"shared part {key.recipe[:16]}",))
    logger.info("the mean of %d adapters was stored; rank %d keeps %.2f of it", len(members), mean.layout.rank, share)
