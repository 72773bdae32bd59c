"""The part of `LMDBStore` that is about documents: whose texts they are, and which indexes hold them."""

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
    """Reads and changes the tables of `ownership`, one transaction a call."""

    def own(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; return those of its former ones that nobody owns any more.

        These stay until `gc`, or until they are removed by name. A text that never had an owner is never among them.
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
        """Replace the list of texts that a document uses; remove, and return, what nobody owns any more.

        All in one transaction: what another document takes up meanwhile is not lost.
        """
        texts = [entries.hash_bytes(text) for text in text_hashes]

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> list[str]:
            freed = ownership.own(transaction, tables, document_id, texts)
            for text in freed:
                entries.remove_text(transaction, tables, text)
            return [text.hex() for text in freed]

        return self._writable().write(change)

    def remove_document(self, document_id: str) -> list[str]:
        """Forget a document, whichever index holds it; remove, and return, the texts that nobody owns any more."""

        def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> list[str]:
            freed = ownership.forget_document(transaction, tables, document_id)
            for text in freed:
                entries.remove_text(transaction, tables, text)
            return [text.hex() for text in freed]

        return self._writable().write(change)

    def owners(self, text_hash: str) -> list[str]:
        """Ids of the documents that use a text."""
        text = entries.hash_bytes(text_hash)
        with self._live().read() as (transaction, tables):
            return ownership.owners_of(transaction, tables, text)

    def texts(self, document_id: str) -> list[str]:
        """Hashes of the texts that a document uses."""
        with self._live().read() as (transaction, tables):
            return [text.hex() for text in ownership.texts_of(transaction, tables, document_id)]

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Note that an index holds documents, so that they stay when another one deletes them.

        Nothing is written if that is known.

        Args:
            index: Any id that is the index's own.
            document_ids: Of documents with or without adapters.
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
        """Take from a document the texts that indexes no longer have, unless another index holds the document.

        All in one transaction: what another index takes up meanwhile is not lost. Nothing is written if the document is
        unknown.

        Args:
            indexes: Ids of the indexes that have changed.
            document_id: The document.
            keep: Hashes of the texts that they still have of it; with none, they no longer hold it.
            purge: Whether what nobody owns any more is removed at once; if not, it stays until `gc`.

        Returns:
            The texts that nobody owns any more.
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
        """All documents, with their texts and the indexes that hold them, by id."""
        with self._live().read() as (transaction, tables):
            return sorted(ownership.documents(transaction, tables), key=lambda document: document.id)

    def _live(self) -> SharedEnvironment:
        raise NotImplementedError

    def _writable(self) -> SharedEnvironment:
        raise NotImplementedError
