"""The joined state of a shared store: which adapters, owners and documents its records amount to.

What a reader sees follows from the facts alone, so hosts that have read the same records agree:

- A `GoneFact` takes effect if it is unconditional, or no other index holds the document. The indexes that began to hold
  the document after it had taken effect do not call it back.
- The `OwnerFact`s that it names end once it takes effect.
- A text's adapters and side entries are removed by a `GoneFact` that names them and has taken effect, unless a document
  still uses the text. A document that began to use it after that does not bring them back: it did not see them.

So a text is kept if one host removes its last owner while another adds one, and is removed if two hosts each remove the
last owner but one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from llamaindex_prag.store.base import StoredDocument
from llamaindex_prag.store.object.causal import Delta, Dot, Dots
from llamaindex_prag.store.object.facts import AdapterFact, Fact, GoneFact, HeldFact, OwnerFact, SideFact

Kind = TypeVar("Kind", AdapterFact, SideFact, OwnerFact, HeldFact, GoneFact)
Found = list[tuple[Dot, Kind]]


class State:
    """Facts, indexed by text, document and side entry; changes only by `join`."""

    def __init__(self) -> None:
        self.facts: dict[Dot, Fact] = {}
        self.seen = Dots()
        self.turn = 0
        """The largest turn of any fact; a writer uses a larger one, so turns order what happened after what."""
        self._by_text: dict[str, set[Dot]] = {}
        self._by_document: dict[str, set[Dot]] = {}
        self._sides: dict[tuple[str, str], set[Dot]] = {}

    def join(self, delta: Delta[Fact]) -> tuple[int, set[str]]:
        """Join with what a record says.

        Returns:
            How many adapters, and side entries of texts, are no longer visible or were replaced; and the digests of
            their objects.
        """
        removed, added = delta.to_join(self.facts, self.seen)
        touched = self._texts_of([self.facts[dot] for dot in removed] + [delta.facts[dot] for dot in added])
        before = {text: self._visible(text) for text in touched}
        for dot in removed:
            self._index(dot, self.facts.pop(dot), add=False)
        for dot in added:
            self.facts[dot] = delta.facts[dot]
            self._index(dot, delta.facts[dot], add=True)
            self.turn = max(self.turn, delta.facts[dot].turn)
        self.seen.update(delta.seen)
        lost: dict[tuple[str, str], str] = {}
        for text, known in before.items():
            now = self._visible(text)
            lost |= {name: digest for name, digest in known.items() if _stale(name, digest, now)}
        return len(lost), set(lost.values())

    # Adapters and side entries

    def adapter(self, text: str, recipe: str) -> tuple[Dot, AdapterFact] | None:
        """Return the adapter of a text and recipe; of several that hosts stored at once, the same for every reader."""
        found = [(dot, fact) for dot, fact in self.adapters_of(text) if fact.recipe == recipe]
        return _last(found)

    def adapters_of(self, text: str) -> Found[AdapterFact]:
        """Return the visible adapters of a text."""
        hidden = self._hidden(text)
        return [(dot, fact) for dot, fact in self.of_text(text, AdapterFact) if dot not in hidden]

    def adapters(self) -> Iterator[tuple[Dot, AdapterFact]]:
        """Yield all visible adapters, sorted by text and recipe."""
        for text in sorted(self._by_text):
            found: dict[str, Found[AdapterFact]] = {}
            for dot, fact in self.adapters_of(text):
                found.setdefault(fact.recipe, []).append((dot, fact))
            for recipe in sorted(found):
                if (last := _last(found[recipe])) is not None:
                    yield last

    def side(self, table: str, key: str) -> tuple[Dot, SideFact] | None:
        """Return a side entry."""
        found = [(dot, self.facts[dot]) for dot in self._sides.get((table, key), ())]
        hidden = self._hidden(text) if found and (text := found[0][1].text) else set()  # type: ignore[union-attr]
        return _last([(dot, fact) for dot, fact in found if isinstance(fact, SideFact) and dot not in hidden])

    def side_dots(self, table: str, key: str) -> list[Dot]:
        """Return all facts of a side entry, visible or not."""
        return list(self._sides.get((table, key), ()))

    def side_entries(self) -> int:
        """Return the number of visible side entries."""
        return sum(self.side(*name) is not None for name in self._sides)

    def of_text(self, text: str, kind: type[Kind]) -> Found[Kind]:
        """Return all facts of a kind about a text, visible or not."""
        return [(dot, fact) for dot in self._by_text.get(text, ()) if isinstance(fact := self.facts[dot], kind)]

    def of_document(self, document: str, kind: type[Kind]) -> Found[Kind]:
        """Return all facts of a kind about a document, visible or not."""
        return [(dot, fact) for dot in self._by_document.get(document, ()) if isinstance(fact := self.facts[dot], kind)]

    def all_of(self, kind: type[Kind]) -> Found[Kind]:
        """Return all facts of a kind."""
        return [(dot, fact) for dot, fact in self.facts.items() if isinstance(fact, kind)]

    # Documents

    def owners(self, text: str) -> Found[OwnerFact]:
        """Return the owners of a text that have not ended."""
        return [(dot, fact) for dot, fact in self.of_text(text, OwnerFact) if not self._ended(dot, fact)]

    def texts(self, document: str) -> list[str]:
        """Return the texts that a document uses, in the order in which they were given."""
        owned = [(dot, fact) for dot, fact in self.of_document(document, OwnerFact) if not self._ended(dot, fact)]
        return list(dict.fromkeys(fact.text for _, fact in sorted(owned, key=_order)))

    def indexes(self, document: str) -> list[str]:
        """Return the indexes that hold a document, in the order in which they were given."""
        found = sorted(self.of_document(document, HeldFact), key=_order)
        return list(dict.fromkeys(fact.index for _, fact in found))

    def documents(self) -> list[StoredDocument]:
        """Return all documents that use a text or that an index holds, sorted by id."""
        found = [
            StoredDocument(id=name, texts=tuple(self.texts(name)), indexes=tuple(self.indexes(name)))
            for name in sorted(self._by_document)
        ]
        return [document for document in found if document.texts or document.indexes]

    def unowned(self) -> list[str]:
        """Return the texts whose last owner is gone, and that wait for a garbage collection."""
        found = {fact.text for dot, fact in self.all_of(GoneFact) if not fact.purge and self.has_effect(dot, fact)}
        return sorted(text for text in found if not self.owners(text))

    # What a `GoneFact` does

    def has_effect(self, dot: Dot, gone: GoneFact) -> bool:
        """Return whether the document no longer uses the text: no other index holds it."""
        if gone.indexes is None:
            return True
        return all(
            held.index in gone.indexes or dot in held.after for _, held in self.of_document(gone.document, HeldFact)
        )

    def removes(self, dot: Dot, gone: GoneFact) -> bool:
        """Return whether adapters of the text are removed: it has effect, and no owner is left that it must spare."""
        if not gone.purge or not self.has_effect(dot, gone):
            return False
        return all(dot in owner.after for _, owner in self.owners(gone.text))

    def removals(self, text: str) -> Found[GoneFact]:
        """Return what removes adapters or side entries of a text."""
        return [(dot, gone) for dot, gone in self.of_text(text, GoneFact) if self.removes(dot, gone)]

    def _ended(self, dot: Dot, owner: OwnerFact) -> bool:
        return any(
            dot in gone.owners and self.has_effect(by, gone) for by, gone in self.of_document(owner.document, GoneFact)
        )

    def _hidden(self, text: str) -> set[Dot]:
        return {dot for _, gone in self.removals(text) for dot in gone.removes}

    def _visible(self, text: str) -> dict[tuple[str, str], str]:
        """Return the digests of a text's adapters, by recipe, and of its side entries, by table and key."""
        found = {("", fact.recipe): fact.digest for _, fact in sorted(self.adapters_of(text), key=_order)}
        hidden = self._hidden(text)
        sides = [(dot, fact) for dot, fact in self.of_text(text, SideFact) if dot not in hidden]
        return found | {(f"/{fact.table}", fact.key): fact.digest for _, fact in sorted(sides, key=_order)}

    def _texts_of(self, facts: Iterable[Fact]) -> set[str]:
        """Return the texts whose visible adapters may depend on these facts."""
        found: set[str] = set()
        for fact in facts:
            if isinstance(fact, HeldFact):
                found.update(gone.text for _, gone in self.of_document(fact.document, GoneFact))
            elif fact.text is not None:
                found.add(fact.text)
        return found

    def _index(self, dot: Dot, fact: Fact, *, add: bool) -> None:
        places: list[tuple[dict[Any, set[Dot]], Any]] = []
        if not isinstance(fact, HeldFact) and fact.text is not None:
            places.append((self._by_text, fact.text))
        if isinstance(fact, OwnerFact | HeldFact | GoneFact):
            places.append((self._by_document, fact.document))
        if isinstance(fact, SideFact):
            places.append((self._sides, (fact.table, fact.key)))
        for index, name in places:
            if add:
                index.setdefault(name, set()).add(dot)
            else:
                index[name].discard(dot)
                if not index[name]:
                    del index[name]


def _order(entry: tuple[Dot, Fact]) -> tuple[int, str, int]:
    (writer, number), fact = entry
    return (fact.turn, writer, number)


def _last(found: Found[Kind]) -> tuple[Dot, Kind] | None:
    return max(found, key=_order, default=None)


def _stale(name: tuple[str, str], digest: str, now: dict[tuple[str, str], str]) -> bool:
    """Return whether copies are stale: an adapter was removed or replaced, or a side entry removed with its text."""
    return name not in now if name[0] else now.get(name) != digest
