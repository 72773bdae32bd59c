"""How adapters attach to the engine: a protocol, implemented elsewhere.

The engine knows of an adapter set only what it needs: a key by which two sets are the same, so that a
prefix cache never serves keys and values that other parameters computed, and a context in which one
forward runs with each row's own set. Nothing here knows what an adapter is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable


@runtime_checkable
class AdapterSet(Protocol):
    """The adapters of one generation."""

    @property
    def cache_key(self) -> Hashable:
        """Equal for two sets exactly if they change the model in the same way: members, weights and scale."""
        ...


@runtime_checkable
class AdapterBackend(Protocol):
    """Applies adapter sets to the model that an engine owns."""

    def activate(self, rows: Sequence[AdapterSet | None]) -> AbstractContextManager[None]:
        """A context for one forward whose batch row `i` runs with `rows[i]` (`None`: the base model).

        The engine enters it under its lock, around every single forward, so an implementation needs no
        locking of its own; on exit the model must behave as the base model again.
        """
        ...


@runtime_checkable
class PackedBackend(AdapterBackend, Protocol):
    """A backend that can apply different sets to parts of one batch row.

    With any other backend, prompts under different adapters are not computed together.
    """

    def activate_packed(
        self, rows: Sequence[AdapterSet | None], lengths: Sequence[int]
    ) -> AbstractContextManager[None]:
        """As `activate`, for a single batch row: `lengths[0]` tokens with `rows[0]`, then those of the next."""
        ...


def key_of(adapters: AdapterSet | None) -> Hashable:
    """The set's key; None for the base model."""
    return None if adapters is None else adapters.cache_key
