"""An adapter source for a bank that serves both translated and stored adapters.

    text -> representation, kept in the store under the text's hash -> adapter, generated when it is read

The store keeps a document's representation (2 KB), not its adapter. Like an adapter, the representation belongs to its
text: it is removed together with its document, and no slot filled from it is used afterwards.
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
    """Serves a store's trained adapters, and those that a translator makes from the representations in the store.

    Args:
        store: Store of the adapters, with side tables for representations.
        translator: Translator that makes representations and adapters; its fingerprint names the side table.
    """

    def __init__(self, store: ReadableStore, translator: Translator) -> None:
        self._store: Any = store
        self.translator = translator
        self._table = _TABLE + translator.fingerprint

    @property
    def generation(self) -> int:
        """Generation of the store; grows when a document is removed, whether its adapter is trained or translated."""
        return int(self._store.generation)

    def knows(self, digest: str) -> bool:
        """Return whether the store holds a representation of the text with this hash."""
        return self._store.get_json(self._table, digest) is not None

    def keep(
        self, passages: Iterable[Passage], *, complete: bool = False, progress: bool = False, together: int = 16
    ) -> int:
        """Compute and store the missing representations; returns how many were computed.

        Args:
            passages: The passages; duplicates are read once.
            complete: Whether these are all passages of their documents; see `settle_owners`.
            progress: Whether to show a progress bar.
            together: Number of passages between two writes.

        Raises:
            ConfigurationError: If a text is blank. Nothing is stored in that case.
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
        """Write one adapter's values into `out` and return its scale."""
        (scale,) = self.read_many([key], [out])
        return scale

    def read_many(self, keys: Sequence[AdapterKey], outs: Sequence[NDArray[np.float32]]) -> list[float]:
        """Write the values of several adapters into `outs`, translating in one pass; returns their scales.

        Raises:
            AdapterMissingError: If the store has neither an adapter nor a representation for a key.
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
                f"the store has no representation of the text {key.text[:12]} for this translator; was its document "
                "removed? Otherwise store it first (Translations.keep, missing='translate')."
            )
        return Representation.from_json(kept)

    def __repr__(self) -> str:
        return f"Translations({self.translator!r}, {self._store!r})"
