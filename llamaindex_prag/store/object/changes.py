"""The changes of a shared store: each returns what one record says, given the state that its writer has read.

A record is one object, so a change is seen as a whole or not at all. Nothing here reads or writes objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from llamaindex_prag.store.object.causal import Delta, Dot, Dots
from llamaindex_prag.store.object.facts import AdapterFact, Fact, GoneFact, HeldFact, OwnerFact, SideFact
from llamaindex_prag.store.object.state import State


class Change:
    """A change under construction: facts to add and dots to remove.

    Args:
        state: The state that the writer has read.
        new_dot: Returns a dot that was never used.
    """

    def __init__(self, state: State, new_dot: Callable[[], Dot]) -> None:
        self.state = state
        self.turn = state.turn + 1
        self._new_dot = new_dot
        self._facts: dict[Dot, Fact] = {}
        self._removed: set[Dot] = set()

    def __bool__(self) -> bool:
        return bool(self._facts or self._removed)

    def delta(self, own: Dot) -> Delta[Fact]:
        """Return what the record says, which has the dot `own` itself."""
        return Delta(Dots.of([own, *self._facts, *self._removed]), dict(self._facts))

    def put(self, dot: Dot, fact: AdapterFact, owners: Iterable[str]) -> None:
        """Store an adapter in the place of the recipe's others of the text."""
        state, text = self.state, fact.text
        self._removed |= {old for old, known in state.of_text(text, AdapterFact) if known.recipe == fact.recipe}
        self._drop_lazy(text)
        self._facts[dot] = fact
        for document in owners:
            self.own_also(document, [text])

    def put_side(self, dot: Dot, fact: SideFact) -> None:
        """Store a side entry in the place of the one that is known."""
        self._removed.update(self.state.side_dots(fact.table, fact.key))
        self._facts[dot] = fact

    def own(self, document: str, texts: Iterable[str], *, purge: bool) -> list[str]:
        """Replace a document's texts; return those that it no longer has."""
        before, after = self.state.texts(document), list(dict.fromkeys(texts))
        gone = [text for text in before if text not in set(after)]
        self._end(document, gone, purge=purge, indexes=None)
        new = [text for text in after if text not in set(before)]
        if [text for text in before if text in set(after)] + new == after:
            self.own_also(document, new)
        else:  # in another order: all are recorded again
            again = set(after)
            self._removed |= {dot for dot, fact in self.state.of_document(document, OwnerFact) if fact.text in again}
            self.own_also(document, after, again=True)
        return gone

    def own_also(self, document: str, texts: Iterable[str], *, again: bool = False) -> None:
        """Add to a document's texts; with `again`, also record those that it has already."""
        known = set() if again else set(self.state.texts(document))
        for text in texts:
            if text not in known:
                known.add(text)
                after = tuple(sorted(dot for dot, _ in self.state.removals(text)))
                self._add(OwnerFact(turn=self.turn, document=document, text=text, after=after))

    def remove_document(self, document: str) -> list[str]:
        """Remove a document from all indexes, and its texts; return these."""
        gone = self.own(document, (), purge=True)
        self._removed |= {dot for dot, _ in self.state.of_document(document, HeldFact)}
        return gone

    def hold(self, index: str, documents: Iterable[str]) -> None:
        """Record that an index holds documents."""
        for document in documents:
            if index not in self.state.indexes(document):
                self._drop_without_effect(document)
                ended = [
                    dot
                    for dot, gone in self.state.of_document(document, GoneFact)
                    if gone.indexes is not None and self.state.has_effect(dot, gone)
                ]
                self._add(HeldFact(turn=self.turn, document=document, index=index, after=tuple(sorted(ended))))

    def let_go(self, indexes: Collection[str], document: str, keep: Iterable[str], *, purge: bool) -> list[str]:
        """End a document's texts that indexes no longer have, unless another one holds it; return these texts."""
        kept = set(keep)
        self._drop_without_effect(document)
        if not kept:
            held = self.state.of_document(document, HeldFact)
            self._removed |= {dot for dot, fact in held if fact.index in indexes}
        gone = [text for text in self.state.texts(document) if text not in kept]
        self._end(document, gone, purge=purge, indexes=tuple(sorted(indexes)))
        return gone

    def remove_adapter(self, text: str, recipe: str) -> int:
        """Remove one adapter, and everything else of its text if it was the last one; return how many there were."""
        adapters = self.state.adapters_of(text)
        if not any(fact.recipe == recipe for _, fact in adapters):
            return 0
        if all(fact.recipe == recipe for _, fact in adapters):
            return self.remove_text(text)
        self._removed |= {dot for dot, fact in self.state.of_text(text, AdapterFact) if fact.recipe == recipe}
        return 1

    def remove_text(self, text: str) -> int:
        """Remove a text with all that is known about it; return how many adapters there were."""
        found = len({fact.recipe for _, fact in self.state.adapters_of(text)})
        for kind in (AdapterFact, SideFact, OwnerFact, GoneFact):
            self._removed |= {dot for dot, _ in self.state.of_text(text, kind)}  # type: ignore[type-var]
        return found

    def purge(self, texts: Iterable[str]) -> None:
        """Remove texts whose last owner is gone, unless another host is adding an owner right now."""
        for text in texts:
            self._drop_lazy(text)
            self._add(self._gone("", text, (), purge=True, indexes=None))

    def settle(self, gone: Sequence[tuple[Dot, GoneFact]]) -> None:
        """Carry out what has been recorded for so long that no change that did not see it can still arrive.

        All removals of a text are carried out together: one may remove its adapter only because of another, and who has
        not seen that one may still begin to use the text.
        """
        settled = {dot for dot, _ in gone}
        for dot, fact in gone:
            if self.state.has_effect(dot, fact):
                if not settled.issuperset(other for other, _ in self.state.of_text(fact.text, GoneFact)):
                    continue
                if not fact.purge and not self.state.owners(fact.text):
                    continue  # waits for `purge`
                self._removed.update(fact.owners)
                if self.state.removes(dot, fact):
                    self._removed.update(fact.removes)
            self._removed.add(dot)

    def _drop_lazy(self, text: str) -> None:
        """Let a text no longer wait for a garbage collection; the owners that ended stay so."""
        for dot, gone in self.state.of_text(text, GoneFact):
            if not gone.purge and self.state.has_effect(dot, gone):
                self._removed.add(dot)
                self._removed.update(gone.owners)

    def _drop_without_effect(self, document: str) -> None:
        """Drop what had no effect because another index held the document: it must not take effect later."""
        known = self.state.of_document(document, GoneFact)
        self._removed |= {dot for dot, gone in known if not self.state.has_effect(dot, gone)}

    def _end(self, document: str, texts: Iterable[str], *, purge: bool, indexes: tuple[str, ...] | None) -> None:
        for text in texts:
            owners = tuple(dot for dot, fact in self.state.of_document(document, OwnerFact) if fact.text == text)
            if indexes is None:
                self._removed.update(owners)
                owners = ()
            self._add(self._gone(document, text, owners, purge=purge, indexes=indexes))

    def _gone(
        self, document: str, text: str, owners: tuple[Dot, ...], *, purge: bool, indexes: tuple[str, ...] | None
    ) -> GoneFact:
        removes: list[Dot] = []
        if purge:
            removes += [dot for dot, _ in self.state.of_text(text, AdapterFact)]
            removes += [dot for dot, _ in self.state.of_text(text, SideFact)]
        return GoneFact(
            turn=self.turn,
            document=document,
            text=text,
            owners=tuple(sorted(owners)),
            removes=tuple(sorted(removes)),
            purge=purge,
            indexes=indexes,
        )

    def _add(self, fact: Fact) -> None:
        self._facts[self._new_dot()] = fact
