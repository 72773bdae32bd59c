"""Protocols that connect adapters to the engine; they are implemented elsewhere.

The engine needs two things from an adapter set: a key that identifies it, so that the prefix cache never serves keys
and values computed with other parameters, and a context in which one forward pass applies each sequence's own set. This
module does not know what an adapter is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable


@runtime_checkable
class AdapterSet(Protocol):
    """The adapters of one generation: which ones, their weights and their scale.

    The engine only compares and hashes its key: sequences share a cached prefix only if they have the same adapters.
    """

    @property
    def cache_key(self) -> Hashable:
        """Key that is equal for two sets if and only if their members, weights and scale are the same."""
        ...


@runtime_checkable
class AdapterBackend(Protocol):
    """Applies adapter sets to the model that an engine owns.

    The engine knows nothing of adapters but this protocol. It may run sequences with different sets in one forward
    pass.
    """

    def activate(self, rows: Sequence[AdapterSet | None]) -> AbstractContextManager[None]:
        """Return a context for one forward pass in which batch row `i` runs with `rows[i]` (`None`: the base model).

        The engine enters the context in the model thread, around every single forward pass, so an implementation needs
        no locking. On exit the model must behave as the base model again.
        """
        ...


@runtime_checkable
class PackedBackend(AdapterBackend, Protocol):
    """A backend that can apply different adapter sets to parts of one packed batch row.

    With any other backend, prompts with different adapters are prefilled in separate forward passes.
    """

    def activate_packed(
        self, rows: Sequence[AdapterSet | None], lengths: Sequence[int]
    ) -> AbstractContextManager[None]:
        """Return a context like `activate`, for a single packed batch row.

        Args:
            rows: The adapter set of each sequence in the packed row.
            lengths: How many tokens each sequence occupies, in the same order.
        """
        ...


def key_of(adapters: AdapterSet | None) -> Hashable:
    """Return the cache key of an adapter set; None for the base model."""
    return None if adapters is None else adapters.cache_key
