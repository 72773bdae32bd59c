"""Adapter storage: content-addressed, crash-safe and memory-mapped, with import and export of PEFT folders.

Needs neither torch nor a model.
"""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from llamaindex_prag.store.base import AdapterStore as AdapterStore
    from llamaindex_prag.store.base import GcReport as GcReport
    from llamaindex_prag.store.base import StoreStats as StoreStats
    from llamaindex_prag.store.base import VerifyReport as VerifyReport
    from llamaindex_prag.store.encoding import Encoding as Encoding
    from llamaindex_prag.store.lmdb_store import LMDBStore as LMDBStore
    from llamaindex_prag.store.peft_folder import export_peft as export_peft
    from llamaindex_prag.store.peft_folder import import_peft as import_peft

_EXPORTS = {
    "AdapterStore": "base",
    "Encoding": "encoding",
    "GcReport": "base",
    "LMDBStore": "lmdb_store",
    "StoreStats": "base",
    "VerifyReport": "base",
    "export_peft": "peft_folder",
    "import_peft": "peft_folder",
}

__all__ = [
    "AdapterStore",
    "Encoding",
    "GcReport",
    "LMDBStore",
    "StoreStats",
    "VerifyReport",
    "export_peft",
    "import_peft",
]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
