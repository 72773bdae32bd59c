"""The part of `LMDBStore` that deals with documents: the texts they use, and the indexes that hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from llamaindex_prag.store import entries, ownership
from llamaindex_prag.store.base import StoredDocument

if TYPE_CHECKING:
    import lmdb
    from lmdb import _Database as Table

    from llamaindex_prag.store.environment import SharedEnvironment


class DocumentsOfStore:
    """Reads and changes the tables of `ownership`, in one transaction per call."""

    def own(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; return its former texts that no document uses any more.

        These stay until `gc` runs or they are removed by name. A text that never had an owner is never among them.
        """
        texts = [entries.hash_bytes(text) for text in text_hashes]
        freed = self._writable().write(
            lambda transaction, tables: ownership.own(transaction, tables, document_id, texts)
        )
        return [text.hex() for text in freed]

    def own_also(self, document_id: str, text_hashes: Iterable[str]) -> None:
        """Add to the list of texts that a document uses, in one transaction."""
        texts = [entries.hash_bytes(text) for text in text_hashes]

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> None:
            before = ownership.texts_of(transaction, tables, document_id)
            ownership.own(transaction, tables, document_id, [*before, *texts])

        self._writable().write(change)

    def replace_document(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; remove and return those that no document uses any more.

        A single transaction, so a text that another document starts using in the meantime is not lost.
        """
        texts = [entries.hash_bytes(text) for text in text_hashes]

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> list[str]:
            freed = ownership.own(transaction, tables, document_id, texts)
            for text in freed:
                entries.remove_text(transaction, tables, text)
            return [text.hex() for text in freed]

        return self._writable().write(change)

    def remove_document(self, document_id: str) -> list[str]:
        """Forget a document, whichever index holds it; remove and return the texts that no document uses any more."""

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> list[str]:
            freed = ownership.forget_document(transaction, tables, document_id)
            for text in freed:
                entries.remove_text(transaction, tables, text)
            return [text.hex() for text in freed]

        return self._writable().write(change)

    def owners(self, text_hash: str) -> list[str]:
        """Return the ids of the documents that use a text."""
        text = entries.hash_bytes(text_hash)
        with self._live().read() as (transaction, tables):
            return ownership.owners_of(transaction, tables, text)

    def texts(self, document_id: str) -> list[str]:
        """Return the hashes of the texts that a document uses."""
        with self._live().read() as (transaction, tables):
            return [text.hex() for text in ownership.texts_of(transaction, tables, document_id)]

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Record that an index holds documents, so that they stay when another index deletes them.

        Writes nothing if that is already recorded.

        Args:
            index: A unique id of the index.
            document_ids: Documents with or without adapters.
        """
        wanted = set(document_ids)
        wanted -= {document.id for document in self.documents() if index in document.indexes}
        if not wanted:
            return

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> None:
            for document_id in wanted:
                ownership.hold(transaction, tables, document_id, index)

        self._writable().write(change)

    def let_go(
        self, indexes: Collection[str], document_id: str, keep: Iterable[str] = (), *, purge: bool = True
    ) -> list[str]:
        """Remove from a document the texts that indexes no longer have, unless another index holds the document.

        A single transaction, so a text that another index adds in the meantime is not lost. Writes nothing if the
        document is unknown.

        Args:
            indexes: Ids of the indexes that have changed.
            document_id: The document.
            keep: Hashes of the document's texts that they still have; if empty, they no longer hold it.
            purge: Whether texts without an owner are removed at once; if not, they stay until `gc`.

        Returns:
            The texts that no document uses any more.
        """
        kept = [entries.hash_bytes(text) for text in keep]
        with self._live().read() as (transaction, tables):
            if not ownership.is_known(transaction, tables, document_id):
                return []

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> list[str]:
            freed = ownership.let_go(transaction, tables, document_id, indexes, kept)
            if purge:
                for text in freed:
                    entries.remove_text(transaction, tables, text)
            return [text.hex() for text in freed]

        return self._writable().write(change)

    def documents(self) -> list[StoredDocument]:
        """Return all documents, sorted by id, with their texts and the indexes that hold them."""
        with self._live().read() as (transaction, tables):
            return sorted(ownership.documents(transaction, tables), key=lambda document: document.id)

    def _live(self) -> SharedEnvironment:
        raise NotImplementedError

    def _writable(self) -> SharedEnvironment:
        raise NotImplementedError
