"""Detects indexes whose deletions would not reach the adapters, and logs a warning when they are first searched."""

from __future__ import annotations

import functools
import inspect
import logging
import weakref
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.base import BaseIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.span_handlers import NullSpanHandler

from llamaindex_prag.llama_index.docstore import AdaptersFollow, warn_of_left_behind
from llamaindex_prag.llama_index.index_contents import identity_of
from rag_backbone.errors import AdapterError, ConfigurationError

logger = logging.getLogger(__name__)

_stores: weakref.WeakSet[Any] = weakref.WeakSet()
_seen: weakref.WeakSet[Any] = weakref.WeakSet()


class ReloadedIndexes(NullSpanHandler):
    """Checks each retriever's document store once. It can only log, because LlamaIndex drops what handlers raise."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the handler."""
        return "ReloadedIndexes"

    def span_enter(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **_kwargs: Any,
    ) -> None:
        """Warn if a retriever's index was built with a `ParametricDocumentStore` but loaded without it."""
        if not isinstance(instance, BaseRetriever):
            return
        # LlamaIndex's retrievers keep their index under this name, and have no public attribute for it.
        index = getattr(instance, "_index", None)
        if isinstance(index, BaseIndex) and index.docstore not in _seen:
            _seen.add(index.docstore)
            for store in list(_stores):
                _look(index, store)


def watch(store: Any) -> None:
    """Start checking all indexes that this process searches, for adapters of this store. Idempotent."""
    _stores.add(store)
    _handle()


@functools.cache
def _handle() -> None:
    get_dispatcher().add_span_handler(ReloadedIndexes())


def _look(index: BaseIndex[Any], store: Any) -> None:
    docstore = index.docstore
    identity = identity_of(docstore)
    try:
        if identity is None or not any(identity in document.indexes for document in store.documents()):
            return
        warn_of_left_behind(index, store)
    except (AdapterError, ConfigurationError):  # for example, the store was closed
        return
    if not isinstance(docstore, AdaptersFollow):
        logger.warning(
            "this index was loaded with a plain %s: documents deleted from it keep their adapters in %s. Load it with "
            "docstore=ParametricDocumentStore.from_persist_dir(FOLDER, llm=llm), "
            "StorageContext.from_defaults(docstore=docstore, persist_dir=FOLDER); or run, after deletions, "
            "dynprag store gc --store %s --against FOLDER",
            type(docstore).__name__,
            getattr(store, "path", "the store"),
            getattr(store, "path", "STORE"),
        )
