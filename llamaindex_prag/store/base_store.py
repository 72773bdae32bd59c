"""What both kinds of store do alike: documents and the texts they use, removals, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.errors import AdapterMissingError, AdapterRefusedError, StoreError
from llamaindex_prag.store import entries
from llamaindex_prag.store.encoding import Encoding

T = TypeVar("T")


class BaseStore:
    """A store in which each call is one atomic change.

    A kind of store says how a change is made (`_change`), with an object that has the methods of `entries.RowsChange`.
    """

    model: str
    """Fingerprint of the adapters' base model."""
    encoding: Encoding
    """Encoding of adapters that are stored from now on."""
    readonly: bool
    _closed: bool = False

    def own(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; return its former texts that no document uses any more.

        These stay until `gc` runs or they are removed by name. A text that never had an owner is never among them.
        """
        texts = _checked(text_hashes)
        return self._freed(lambda change: change.own(document_id, texts, purge=False))

    def own_also(self, document_id: str, text_hashes: Iterable[str]) -> None:
        """Add to the list of texts that a document uses."""
        texts = _checked(text_hashes)
        self._change(lambda change: change.own_also(document_id, texts))

    def replace_document(self, document_id: str, text_hashes: Iterable[str]) -> list[str]:
        """Replace the list of texts that a document uses; remove and return those that no document uses any more.

        A text that another document starts using in the meantime is not lost.
        """
        texts = _checked(text_hashes)
        return self._freed(lambda change: change.own(document_id, texts, purge=True))

    def remove_document(self, document_id: str) -> list[str]:
        """Forget a document, whichever index holds it; remove and return the texts that no document uses any more.

        In a store that many hosts share, none serves them from `removal_delay` seconds after this returns.
        """
        return self._freed(lambda change: change.remove_document(document_id))

    def hold(self, index: str, document_ids: Iterable[str]) -> None:
        """Record that an index holds documents, so that they stay when another index deletes them.

        Writes nothing if that is already recorded.

        Args:
            index: A unique id of the index.
            document_ids: Documents with or without adapters.
        """
        wanted = sorted(set(document_ids))
        if self._may_lack(index, wanted):
            self._change(lambda change: change.hold(index, wanted))

    def let_go(
        self, indexes: Collection[str], document_id: str, keep: Iterable[str] = (), *, purge: bool = True
    ) -> list[str]:
        """Remove from a document the texts that indexes no longer have, unless another index holds the document.

        A text that another index adds in the meantime is not lost. If two indexes let go of a document at the same
        time, its texts are removed too. Writes nothing if the document is unknown.

        Args:
            indexes: Ids of the indexes that have changed.
            document_id: The document.
            keep: Hashes of the document's texts that they still have; if empty, they no longer hold it.
            purge: Whether texts without an owner are removed at once; if not, they stay until `gc`.

        Returns:
            The texts that no document uses any more.
        """
        kept = _checked(keep)
        if not self._may_know(document_id):
            return []
        return self._freed(lambda change: change.let_go(indexes, document_id, kept, purge=purge))

    def remove(self, what: str | AdapterKey) -> int:
        """Remove a text (by its hash) or one adapter.

        Side entries and owners of a text are removed with its last adapter.

        Returns:
            How many adapters were removed.
        """
        if isinstance(what, AdapterKey):
            self._name(what)
            text, recipe = what.text, what.recipe
            return self._change(lambda change: change.remove_adapter(text, recipe))
        entries.hash_bytes(what)
        return self._change(lambda change: change.remove_text(what))

    def close(self) -> None:
        """Use the store no more; idempotent."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"{type(self).__name__}({str(self._where)!r}, model {self.model[:12]!r}{closed})"

    @property
    def _where(self) -> str | Path:
        """The store's folder or URL."""
        raise NotImplementedError

    def _may_know(self, document_id: str) -> bool:  # noqa: ARG002
        """Return whether a document may be known; asked before a change that an unknown one does not need."""
        return True

    def _may_lack(self, index: str, document_ids: Collection[str]) -> bool:  # noqa: ARG002
        """Return whether an index may not hold one of the documents; asked before a change that needs it."""
        return True

    def _change(self, build: Callable[[Any], T]) -> T:
        """Make a change and return what `build` returned."""
        raise NotImplementedError

    def _freed(self, build: Callable[[Any], list[str]]) -> list[str]:
        """Make a change that frees texts, and return those that have no owner now."""
        return self._change(build)

    def _refuse_closed(self) -> None:
        if self._closed:
            kind, where = type(self).__name__, self._where
            raise StoreError(f"the store {where} was closed; open it again with {kind}({str(where)!r}, ...)")

    def _refuse_readonly(self) -> None:
        if self.readonly:
            raise StoreError(f"the store {self._where} was opened with readonly=True; open it again without readonly")

    def _refuse_unless_for(self, model: str | None, found: str) -> None:
        """Refuse a store whose adapters have the base model `found` if another one was asked for."""
        if model is not None and model != found:
            raise StoreError(
                f"the store {self._where} is for the model with fingerprint {found[:12]}..., yours has "
                f"{model[:12]}...; adapters fit one model only, so use another folder"
            )

    def _name(self, key: AdapterKey) -> bytes:
        """Return text and recipe of a key, 32 bytes each, if the key is for this store's model."""
        if key.model != self.model:
            raise AdapterRefusedError(
                f"the key is for the model with fingerprint {key.model[:12]}, the store {self._where} for "
                f"{self.model[:12]}; adapters fit one model only"
            )
        return entries.hash_bytes(key.text) + entries.hash_bytes(key.recipe, "a recipe's key")

    def _missing(self, key: AdapterKey) -> AdapterMissingError:
        return AdapterMissingError(
            f"{self._where} has no adapter of text {key.text[:12]} and recipe {key.recipe[:12]}; train it first"
        )


def _checked(text_hashes: Iterable[str]) -> list[str]:
    return [entries.hash_bytes(text).hex() for text in text_hashes]
