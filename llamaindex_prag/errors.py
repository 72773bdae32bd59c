"""Errors of stored adapters.

All derive from `AdapterError`, a `RuntimeError`: LlamaIndex's `Refine` turns a `ValueError` into "Empty Response".
"""

from __future__ import annotations

from rag_backbone.errors import AdapterError

NO_TRANSLATOR = (
    "No translator is shipped, because none passed: on unseen passages, its answers were no better than with another "
    "passage's adapter (docs/results-translator.md). What works: missing='train', missing='context', or a translator "
    "of your own (dynprag train-translator)."
)
"""End of the messages of everything that needs a translator and was given none."""


class StoreError(AdapterError):
    """A store cannot be opened or used.

    It is not a store, belongs to another model, is truncated or read-only, or was written by a newer version.
    """


class StoreFullError(StoreError):
    """The store has no room for a new entry; what it held before is intact."""


class AdapterMissingError(StoreError):
    """The store has no adapter with this key.

    The document has not been trained with this recipe, or its adapter was removed.
    """


class AdapterRefusedError(AdapterError):
    """An adapter cannot be stored: wrong model or layout, or values that training does not produce."""


class AdapterDamagedError(StoreError):
    """Stored bytes differ from what was written: checksum, size or format do not match.

    `dynprag store verify` lists all damaged entries; remove them and train again.
    """


class PeftFolderError(AdapterError):
    """A PEFT adapter folder cannot be read into, or written from, an adapter of this project."""


class TranslatorError(AdapterError):
    """A translator cannot be used or trained: another model, damaged, or diverged."""


class TranslatorHealthError(TranslatorError):
    """A translator failed its health check, so it is not trained on prose; the message states the figures."""
