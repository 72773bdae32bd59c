"""Translated adapters beside stored ones: a source of both for a bank.

    text -> representation, kept in the store under the text's hash -> adapter, made when it is read

What is kept of a document is its representation (2 KB), not its adapter. It belongs to its text as an adapter does: a
document that is removed takes it along, and no slot that was filled from it is used again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.errors import AdapterMissingError
from llamaindex_prag.passages import Passage, settle_owners
from llamaindex_prag.translator.representation import Representation
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaindex_prag.adapters.source import ReadableStore
    from llamaindex_prag.translator.translator import Translator

_TABLE = "representation/"


class Translations:
    """What a store holds, and what a translator makes of the documents represented in it.

    Args:
        store: Adapters, and side tables for representations.
        translator: Whose representations are kept, by its fingerprint.
    """

    def __init__(self, store: ReadableStore, translator: Translator) -> None:
        self._store: Any = store
        self.translator = translator
        self._table = _TABLE + translator.fingerprint

    @property
    def generation(self) -> int:
        """The store's: it grows when a document is removed, whether its adapter was trained or translated."""
        return int(self._store.generation)

    def knows(self, digest: str) -> bool:
        """Whether the representation of the text with this hash is kept."""
        return self._store.get_json(self._table, digest) is not None

    def keep(
        self, passages: Iterable[Passage], *, complete: bool = False, progress: bool = False, together: int = 16
    ) -> int:
        """Keep the representations that are missing; returns how many were computed.

        Args:
            passages: Equal ones are read once.
            complete: Whether these are all passages of their documents; see `settle_owners`.
            progress: Whether to show a progress bar.
            together: Passages between two writes.

        Raises:
            ConfigurationError: If a text is blank; nothing has been done then.
        """
        given = list(passages)
        for passage in given:
            if not passage.text.strip():
                raise ConfigurationError(f"a passage of {passage.document or 'no document'!r} is blank; give it a text")
        missing = [text for text in dict.fromkeys(p.text for p in given) if not self.knows(text_hash(text))]
        with tqdm(total=len(missing), desc="represent", unit="doc", disable=not progress) as bar:
            for i in range(0, len(missing), together):
                part = missing[i : i + together]
                for text, found in zip(part, self.translator.represent(part), strict=True):
                    self._store.put_json(self._table, text_hash(text), found.to_json())
                bar.update(len(part))
        settle_owners(self._store, given, complete=complete)
        return len(missing)

    def read_into(self, key: AdapterKey, out: NDArray[np.float32]) -> float:
        """Write one adapter's values and return its scale."""
        (scale,) = self.read_many([key], [out])
        return scale

    def read_many(self, keys: Sequence[AdapterKey], outs: Sequence[NDArray[np.float32]]) -> list[float]:
        """Write the values of several adapters, all translated ones in one pass; returns their scales.

        Raises:
            AdapterMissingError: If neither an adapter nor a representation of a key is there.
        """
        scales = [0.0] * len(keys)
        translated: list[int] = []
        for i, (key, out) in enumerate(zip(keys, outs, strict=True)):
            if key.recipe == self.translator.fingerprint:
                translated.append(i)
            else:
                scales[i] = self._store.read_into(key, out)
        if translated:
            values = self.translator.translate([self._representation(keys[i]) for i in translated])
            for i, made in zip(translated, values, strict=True):
                outs[i][:] = made
                scales[i] = self.translator.config.scale
        return scales

    def _representation(self, key: AdapterKey) -> Representation:
        kept = self._store.get_json(self._table, key.text)
        if kept is None:
            raise AdapterMissingError(
                f"no representation of the text {key.text[:12]} is kept for this translator; was its document removed? "
                "Otherwise keep it first (Translations.keep, missing='translate')."
            )
        return Representation.from_json(kept)

    def __repr__(self) -> str:
        return f"Translations({self.translator!r}, {self._store!r})"
