"""Find and remove adapters of documents that an index no longer has.

A store knows which documents it has adapters for, an index which documents it contains. Deleting from an index without
the store's knowledge leaves adapters behind. What to remove is decided per document and text:

    in an index that was named                 the texts that the index has stay, others are removed
    formerly in it, and in no other index      removed
    held by another index                      stays
    not known to be held by any index          stays, unless the named indexes are declared to be all

Knows no framework: an index is described by its `IndexContents`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llamaindex_prag.errors import StoreError
from rag_backbone.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.store.base import AdapterStore, StoredDocument

WARM_UP = "warm-up "
"""Prefix of the owners of adapters from which others start; these owners are not documents."""
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexContents:
    """The documents of an index."""

    name: str
    """Name for messages: the folder, or a description."""
    documents: Mapping[str, frozenset[str] | None]
    """Text hashes by document id; None if only the document is known, so that all its texts stay."""
    ids: Sequence[str] = ()
    """Ids of the index in the store; its documents are recorded under the first one."""
    parts: bool = False
    """Whether `document#part` is a part of `document`."""

    def texts(self, document_id: str) -> frozenset[str] | None:
        """Return the hashes of a document's texts; empty if the index lacks the document, None if they are unknown."""
        if document_id not in self.documents and self.parts:
            document_id = document_id.rpartition("#")[0]
        return self.documents.get(document_id, frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """Result of a reconciliation, or of a dry run."""

    documents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Hashes of the texts that each document no longer has in the index."""
    removed_texts: Sequence[str] = ()
    """Those texts that no other document uses, whose adapters are removed."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Documents that are in none of the named indexes, with the reason why they stay."""
    dry_run: bool = False

    def __str__(self) -> str:
        verb = "would be removed" if self.dry_run else "removed"
        gone = f"adapters of {len(self.removed_texts)} texts {verb}, of {len(self.documents)} documents"
        return f"{gone}; {len(self.kept)} documents stay that are in no named index" if self.kept else gone


def reconcile(
    store: AdapterStore,
    indexes: Sequence[IndexContents],
    *,
    only: bool = False,
    allow_empty: bool = False,
    dry_run: bool = False,
) -> Reconciled:
    """Remove the adapters of documents and texts that indexes no longer have.

    Args:
        store: The store of the adapters.
        indexes: Current contents of the indexes. Nothing must be added to them during the call.
        only: Whether these are all indexes of the store: what is in none of them is removed, whichever index held it.
        allow_empty: Whether an index may have no document of the store, as after its last one was deleted.
        dry_run: Only report what would be removed.

    Raises:
        AdapterError: If an index has no document of the store: it is empty, or belongs to another store.
        ConfigurationError: If no index is given.
        StoreError: If the store is read-only.
    """
    if not indexes:
        raise ConfigurationError("no index was given; name at least one to compare the adapters with")
    known = [document for document in store.documents() if not document.id.startswith(WARM_UP)]
    if not allow_empty:
        for index in indexes:
            _refuse_strangers(index, known)
    if not dry_run and getattr(store, "readonly", False):
        raise StoreError("the store was opened with readonly=True, so nothing can be removed; open it without readonly")
    plan = _planned(known, indexes, only=only)
    ids = [id_ for index in indexes for id_ in index.ids]
    removed = [] if dry_run else _carry_out(store, plan, ids, only=only)
    if not dry_run:
        for index in indexes:
            if index.ids:
                store.hold(index.ids[0], index.documents)
    leaving = plan.leaving()
    gone: dict[str, list[str]] = {}
    for document_id, text in leaving:
        gone.setdefault(document_id, []).append(text)
    freed = [
        text
        for text in dict.fromkeys(text for _, text in leaving)
        if dry_run and all((owner, text) in leaving for owner in store.owners(text))
    ]  # a text is removed with the last document that uses it
    return Reconciled(documents=gone, removed_texts=removed or freed, kept=plan.kept, dry_run=dry_run)


def left_behind(store: AdapterStore, index: IndexContents) -> list[str]:
    """Return the documents that the index held, but of which it no longer has all texts with adapters."""
    held = [document for document in store.documents() if set(document.indexes) & set(index.ids)]
    return list(dict.fromkeys(document_id for document_id, _ in _planned(held, [index], only=False).leaving()))


@dataclass(frozen=True, slots=True)
class _Plan:
    changes: list[tuple[StoredDocument, frozenset[str]]] = field(default_factory=list)
    """Documents that lose texts, with the texts that they keep."""
    dropped: list[str] = field(default_factory=list)
    """Documents that are in no named index, but that another index holds."""
    kept: dict[str, str] = field(default_factory=dict)
    """Documents that are in no named index, with the reason why they stay."""

    def leaving(self) -> dict[tuple[str, str], None]:
        """Return the (document, text) pairs to separate, in order."""
        return {(d.id, text): None for d, keep in self.changes for text in d.texts if text not in keep}


def _planned(known: Sequence[StoredDocument], indexes: Sequence[IndexContents], *, only: bool) -> _Plan:
    ids, plan = {id_ for index in indexes for id_ in index.ids}, _Plan()
    for document in known:
        found = [index.texts(document.id) for index in indexes]
        texts = None if None in found else frozenset[str]().union(*(f for f in found if f is not None))
        if texts is None or (texts and texts.issuperset(document.texts)):
            continue
        others = [] if only else [index for index in document.indexes if index not in ids]
        if others:
            if not texts:
                plan.dropped.append(document.id)
                plan.kept[document.id] = f"another index holds it: {', '.join(others)}"
        elif texts or only or document.indexes:
            plan.changes.append((document, texts))
        else:
            plan.kept[document.id] = "no index is known to hold it"
    return plan


def _carry_out(store: AdapterStore, plan: _Plan, ids: Sequence[str], *, only: bool) -> list[str]:
    removed: list[str] = []
    for document, keep in plan.changes:
        if not only:
            removed += store.let_go(ids, document.id, keep)
        elif keep:
            removed += store.replace_document(document.id, keep & set(document.texts))
        else:
            removed += store.remove_document(document.id)
    for document_id in plan.dropped:
        removed += store.let_go(ids, document_id)
    return removed


def _refuse_strangers(index: IndexContents, known: Sequence[StoredDocument]) -> None:
    """Refuse an index that shares no document with the store: all adapters would be removed by mistake."""
    with_texts = [document for document in known if document.texts]
    if not with_texts or any(index.texts(document.id) != frozenset() for document in with_texts):
        return
    what = (
        f"has {len(index.documents)} documents, but the store has adapters of none of them: it belongs to another "
        "store, or its documents had other names"
        if index.documents
        else "has no document"
    )
    named = ", ".join(document.id for document in with_texts[:_NAMED])
    raise AdapterError(
        f"{index.name} {what}. Nothing was removed; the store has adapters of {len(with_texts)} documents ({named}"
        f"{', ...' if len(with_texts) > _NAMED else ''}). If this is intended, set allow_empty=True (--allow-empty)"
    )
