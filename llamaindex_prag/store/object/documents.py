"""The part of `ObjectStore` that deals with documents: the texts they use, and the indexes that hold them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from llamaindex_prag.store import entries

if TYPE_CHECKING:
    from llamaindex_prag.store.base import StoredDocument
    from llamaindex_prag.store.object.changes import Change
    from llamaindex_prag.store.object.log import RecordLog
    from llamaindex_prag.store.object.state import State


class DocumentsOfObjectStore:
    """Reads the state, and changes it by one record per call."""

    _log: RecordLog

    def own(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; return its former texts that no document uses any more.

        These stay until `gc` runs or they are removed by name. A text that never had an owner is never among them.
        """
        texts = _checked(text_hashes)
        return self._freed(lambda change: change.own(document_id, texts, purge=False))

    def own_also(self, document_id: str, text_hashes: Iterable[str]) -> None:
        """Add to the list of texts that a document uses."""
        texts = _checked(text_hashes)
        self._writable().commit(lambda change: change.own_also(document_id, texts))

    def replace_document(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; remove and return those that no document uses any more.

        A text that another document starts using in the meantime, on any host, is not lost.
        """
        texts = _checked(text_hashes)
        return self._freed(lambda change: change.own(document_id, texts, purge=True))

    def remove_document(self, document_id: str) -> list[str]:
        """Forget a document, whichever index holds it; remove and return the texts that no document uses any more.

        No host serves them from `removal_delay` seconds after this returns.
        """
        return self._freed(lambda change: change.remove_document(document_id))

    def owners(self, text_hash: str) -> list[str]:
        """Return the ids of the documents that use a text."""
        entries.hash_bytes(text_hash)
        with self._log.lock:
            return sorted({fact.document for _, fact in self._current().owners(text_hash)})

    def texts(self, document_id: str) -> list[str]:
        """Return the hashes of the texts that a document uses."""
        with self._log.lock:
            return self._current().texts(document_id)

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Record that an index holds documents, so that they stay when another index deletes them.

        Writes nothing if that is already recorded.

        Args:
            index: A unique id of the index.
            document_ids: Documents with or without adapters.
        """
        wanted = sorted(set(document_ids))
        self._writable().commit(lambda change: change.hold(index, wanted))

    def let_go(
        self, indexes: Collection[str], document_id: str, keep: Iterable[str] = (), *, purge: bool = True
    ) -> list[str]:
        """Remove from a document the texts that indexes no longer have, unless another index holds the document.

        If two indexes let go of a document at the same time, on two hosts, its texts are removed too. Writes nothing if
        the document is unknown.

        Args:
            indexes: Ids of the indexes that have changed.
            document_id: The document.
            keep: Hashes of the document's texts that they still have; if empty, they no longer hold it.
            purge: Whether texts without an owner are removed at once; if not, they stay until `gc`.

        Returns:
            The texts that no document uses any more.
        """
        kept = _checked(keep)
        return self._freed(lambda change: change.let_go(indexes, document_id, kept, purge=purge))

    def documents(self) -> list[StoredDocument]:
        """Return all documents, sorted by id, with their texts and the indexes that hold them."""
        with self._log.lock:
            return self._current().documents()

    def _freed(self, build: Callable[[Change], list[str]]) -> list[str]:
        """Make a change that returns the texts that a document lost; return those that have no owner now."""
        log = self._writable()
        with log.lock:
            return [text for text in log.commit(build) if not log.state.owners(text)]

    def _current(self) -> State:
        raise NotImplementedError

    def _writable(self) -> RecordLog:
        raise NotImplementedError


def _checked(text_hashes: Iterable[str]) -> list[str]:
    return [entries.hash_bytes(text).hex() for text in text_hashes]
