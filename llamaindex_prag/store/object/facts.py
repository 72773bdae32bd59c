"""The facts that a shared store's state consists of; all are immutable and plain data.

StoredAdapter   a text has an adapter of a recipe             SideEntry   a side table has an entry
Owner           a document uses a text                        Held        an index holds a document
Gone            a document no longer uses a text, and what is to be removed with its last owner
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from llamaindex_prag.store.object.causal import Dot

_HASH_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFact:
    """A text has an adapter of a recipe, in the object that is named by this fact's dot and the digest."""

    turn: int
    text: str
    recipe: str
    digest: str
    """SHA-256 of the encoded adapter."""
    size: int
    layout: str
    record: str
    """How it was trained, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFact:
    """A side table has an entry, in the object that is named by this fact's dot and the digest."""

    turn: int
    table: str
    key: str
    digest: str
    size: int

    @property
    def text(self) -> str | None:
        """The hash of the text that the entry is removed with; None if it stays."""
        text, after = self.key[:_HASH_DIGITS], self.key[_HASH_DIGITS : _HASH_DIGITS + 1]
        is_hash = len(text) == _HASH_DIGITS and all(digit in "0123456789abcdef" for digit in text)
        return text if is_hash and after in {"", "/"} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerFact:
    """A document uses a text."""

    turn: int
    document: str
    text: str
    after: tuple[Dot, ...]
    """`GoneFact`s by which the text's adapters were removed already, when the document began to use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFact:
    """An index holds a document."""

    turn: int
    document: str
    index: str
    after: tuple[Dot, ...]
    """`GoneFact`s that took effect already, when the index began to hold the document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneFact:
    """A document no longer uses a text. Readers of the joined records decide what is removed, see `State`.

    A writer cannot know that it removes the last owner: another host may be adding one, or removing another last one.
    So it records what it saw, and the state after the join says whether an owner is left.
    """

    turn: int
    document: str
    text: str
    owners: tuple[Dot, ...]
    """The document's `OwnerFact`s that end, if this takes effect."""
    removes: tuple[Dot, ...]
    """Adapters and side entries of the text that are removed, if no owner is left; empty without `purge`."""
    purge: bool
    """Whether they are removed at once, not by the next garbage collection."""
    indexes: tuple[str, ...] | None
    """None: takes effect in any case. Otherwise: if no index other than these holds the document."""


Fact = AdapterFact | SideFact | OwnerFact | HeldFact | GoneFact

_KINDS: dict[str, type[Fact]] = {
    "adapter": AdapterFact,
    "side": SideFact,
    "owner": OwnerFact,
    "held": HeldFact,
    "gone": GoneFact,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_DOTS = {"after", "owners", "removes"}


def to_plain(fact: Fact) -> dict[str, Any]:
    """Return a fact as plain JSON data."""
    return {"kind": _NAMES[type(fact)], **dataclasses.asdict(fact)}


def from_plain(data: dict[str, Any]) -> Fact:
    """Return the fact that `to_plain` described.

    Raises:
        KeyError: If there is no such kind.
        TypeError: If it has other fields.
    """
    fields = {name: _value(name, value) for name, value in data.items() if name != "kind"}
    return _KINDS[data["kind"]](**fields)


def _value(name: str, value: Any) -> Any:
    if name in _DOTS:
        return tuple((str(writer), int(number)) for writer, number in value)
    return tuple(value) if name == "indexes" and value is not None else value
