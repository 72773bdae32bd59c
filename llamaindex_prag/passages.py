"""Passages and the documents that they belong to. Knows neither models nor adapters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaindex_prag.adapters.adapter import text_hash
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from llamaindex_prag.store.base import AdapterStore


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that is turned into an adapter.

    Within a store, the same text is trained once, whichever documents it is part of, and its first title counts.
    """

    text: str
    title: str = ""
    document: str = ""
    """Id of the document that the passage is part of; removing the document removes the adapter."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean_text(self.text, "a passage"))
        object.__setattr__(self, "title", clean_text(self.title, "a passage's title"))


def settle_owners(store: AdapterStore, passages: Iterable[Passage], *, complete: bool) -> int:
    """Record which documents the passages belong to.

    Args:
        store: The store that keeps the record.
        passages: Those without a document have no owner.
        complete: Whether these are all passages of their documents. If so, texts that a document no longer has, and
            that no other document has, are removed.

    Returns:
        How many texts were removed, with their adapters.
    """
    documents: dict[str, set[str]] = {}
    for passage in passages:
        if passage.document:
            documents.setdefault(passage.document, set()).add(text_hash(passage.text))
    removed = 0
    for document, texts in documents.items():
        if complete:
            removed += len(store.replace_document(document, texts))
        else:
            store.own_also(document, texts)
    return removed
