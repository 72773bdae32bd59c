"""What can go wrong with stored adapters.

All derive from `AdapterError`, a `RuntimeError`: LlamaIndex's `Refine` turns a `ValueError` into "Empty Response".
"""

from __future__ import annotations

from rag_backbone.errors import AdapterError


class StoreError(AdapterError):
    """A store cannot be opened or used: not a store, of another model, truncated, read-only, of a newer version."""


class StoreFullError(StoreError):
    """There is no room for what should be written; nothing that was stored before is lost."""


class AdapterMissingError(StoreError):
    """The store holds no adapter of this key."""


class AdapterRefusedError(AdapterError):
    """An adapter cannot be stored: of another model or layout, or with values that no training gives."""


class AdapterDamagedError(StoreError):
    """Stored bytes are not what was written: checksum, size or format do not fit."""


class PeftFolderError(AdapterError):
    """A PEFT adapter folder cannot be read or written as an adapter of ours."""


class TranslatorError(AdapterError):
    """A translator cannot be used, or trained on: of another model, damaged, diverged."""
