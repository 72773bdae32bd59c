"""The vectors of an index in a collection of a Chroma server. The manifest stays in the index's folder.

A collection belongs to one index: its metadata hold the index's random id, which the manifest holds too, and the
revision of the manifest that was written last. A collection of another index is neither searched nor changed, and a
copy of a folder that has fallen behind cannot change it. All requests may be repeated, so that one that fails because
the connection was lost is sent a second time.
"""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from langgraph_dynrag.retrieval.chroma_folder import FileState
from langgraph_dynrag.retrieval.manifest import Manifest, ServerCollection, state_of
from rag_backbone.errors import ConfigurationError, DynPragError, IndexServerError

_T = TypeVar("_T")

_CONFIGURATION: dict[str, Any] = {"hnsw": {"space": "cosine"}}
_INDEX, _REVISION, _EMBEDDINGS = "dynprag_index", "dynprag_revision", "dynprag_embeddings"


class ChromaServer:
    """A collection of a Chroma server, with the interface of `ChromaFolder`. Thread-safe, as its client is.

    Args:
        client: A client of Chroma, such as `chromadb.HttpClient(...)`.
        collection: The collection's name.
        index_folder: The index's folder, which holds its manifest.

    Raises:
        ConfigurationError: If the client is asynchronous, or not a client of Chroma.
    """

    def __init__(self, client: Any, collection: str, index_folder: Path) -> None:
        get = getattr(client, "get_or_create_collection", None)
        if get is None or inspect.iscoroutinefunction(get):
            what = "an asynchronous client" if get is not None else repr(client)
            raise ConfigurationError(
                f"client is {what}; pass a synchronous client of Chroma, such as "
                "chromadb.HttpClient(host='localhost', port=8000). Its requests run in threads when a graph is async"
            )
        self.client = client
        self.name = collection
        self._folder = index_folder
        self._opened: tuple[str, Any] | None = None
        self._known: tuple[FileState, ServerCollection | None] | None = None

    def claim(self, manifest: Manifest) -> None:
        """Make sure that the index may change the collection; an index without a collection creates this one.

        Raises:
            ConfigurationError: If the collection belongs to another index, or was changed from a newer copy of the
                folder.
            IndexServerError: If the server does not answer.
        """
        with self._translated("opened"):
            collection = self._retried(self._found)
        if manifest.server is None or manifest.server.name != self.name:  # nothing is indexed yet
            if collection is not None:
                raise self._foreign(collection)
            manifest.server = ServerCollection(self.name, uuid.uuid4().hex)
            manifest.write(self._folder)  # first, so that no collection is left without its index
            # Now, so that a name that is refused is known before anything is embedded.
            with self._translated("created"):
                self._collection(create=True)
        elif collection is not None:
            self._check_owner(collection, manifest.server)
            newest = int(collection.metadata.get(_REVISION, 0))
            if newest > manifest.server.revision:
                raise ConfigurationError(
                    f"{self} was changed from another copy of the folder {self._folder} (its revision is {newest}, "
                    f"this folder's {manifest.server.revision}); copy that folder here again"
                )

    def exists(self) -> bool:
        """Return whether the collection exists and belongs to the index."""
        with self._translated("opened"):
            collection = self._retried(self._found)
        if collection is None:
            return False
        self._check_owner(collection, self._server())
        return True

    def read(self, query: Callable[[Any], _T]) -> _T:
        """Return `query(collection)`.

        Raises:
            IndexServerError: If the server does not answer, or the collection is missing.
            ConfigurationError: If the collection belongs to another index, or has vectors of other embeddings.
        """
        with self._translated("read"):
            return self._retried(lambda: query(self._collection(create=False)))

    def write(self, change: Callable[[Any], _T]) -> _T:
        """Return `change(collection)`, which must be repeatable; the collection is created if it does not exist.

        Raises:
            IndexServerError: If the server does not answer.
            ConfigurationError: If the collection belongs to another index, or has vectors of other embeddings.
        """
        with self._translated("written"):
            return self._retried(lambda: change(self._collection(create=True)))

    def written(self, manifest: Manifest) -> None:
        """Record in the collection which manifest was written last."""
        metadata = _metadata(manifest)
        with self._translated("written"):
            found = self._retried(self._found)
            if found is not None:
                self._retried(lambda: found.modify(metadata=metadata))

    def clear(self) -> None:
        """Delete the collection."""
        if self.exists():
            with self._translated("written"):
                self._retried(lambda: self.client.delete_collection(self.name))
        self._opened = None

    def erase(self) -> None:
        """Leave it to the server when the texts of deleted documents disappear from its files."""

    def incomplete(self, missing: str) -> DynPragError:
        """Return the error for vectors that the manifest names and the collection does not have."""
        return IndexServerError(
            f"{missing} in {self} are missing: an ingestion was interrupted, or the folder {self._folder} is an old "
            "copy; ingest again, or copy the folder again"
        )

    def __str__(self) -> str:
        settings = self.client.get_settings()
        host, port = settings.chroma_server_host, settings.chroma_server_http_port
        place = f"the Chroma server at {host}:{port}" if host else type(self.client).__name__
        return f"the collection {self.name!r} of {place}"

    # ------------------------------------------------------------------ helpers

    def _server(self) -> ServerCollection | None:
        """Return what the manifest says about the collection; it is read again if it has changed."""
        state = state_of(self._folder)
        if self._known is None or self._known[0] != state:
            self._known = (state, Manifest.read(self._folder).server)
        return self._known[1]

    def _found(self) -> Any:
        """Return the collection, or None if the server has none of that name."""
        from chromadb.errors import NotFoundError

        try:
            return self.client.get_collection(self.name, embedding_function=None)
        except NotFoundError:
            return None

    def _collection(self, *, create: bool) -> Any:
        """Return the collection that belongs to the index; it is looked up once, and again if it is replaced."""
        server = self._server()
        if server is not None and self._opened is not None and self._opened[0] == server.index:
            return self._opened[1]
        found = self._found()
        if found is None and create and server is not None:
            found = self.client.create_collection(
                self.name,
                embedding_function=None,
                configuration=_CONFIGURATION,
                metadata=_metadata(Manifest.read(self._folder)),
            )
        if found is None:
            raise IndexServerError(f"{self} does not exist; ingest the documents of {self._folder} again")
        self._check_owner(found, server)
        assert server is not None  # or the collection would be another index's
        self._opened = (server.index, found)
        return found

    def _check_owner(self, collection: Any, server: ServerCollection | None) -> None:
        if server is None or (collection.metadata or {}).get(_INDEX) != server.index:
            raise self._foreign(collection)

    def _foreign(self, collection: Any) -> ConfigurationError:
        metadata = collection.metadata or {}
        if _INDEX in metadata:
            whose = f"belongs to an index in another folder, with vectors of {metadata.get(_EMBEDDINGS)}"
        else:
            whose = "was not created by LocalIndex"
        return ConfigurationError(
            f"{self} {whose}; pass the folder that it belongs to in place of {self._folder}, or another collection=. "
            "To search a collection as it is, pass its vector store's as_retriever() to the graph"
        )

    def _retried(self, request: Callable[[], _T]) -> _T:
        """Send a request, and once more if the connection was lost or another process replaced the collection."""
        import httpx
        from chromadb.errors import NotFoundError

        try:
            return request()
        except (httpx.TransportError, NotFoundError):
            self._opened = None
            return request()

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except DynPragError:
            raise
        except httpx.TransportError as error:
            raise IndexServerError(
                f"{self} cannot be {verb}: the server does not answer ({type(error).__name__}: {error}); start it, or "
                "check host and port. An interrupted ingestion continues when it is started again"
            ) from error
        except Exception as error:
            self._opened = None
            if "dimension" in str(error).lower():
                raise ConfigurationError(
                    f"{self} cannot be {verb}: {error}. It has vectors of other embeddings than these; open the index "
                    "with those, or ingest again with these"
                ) from error
            raise IndexServerError(f"{self} cannot be {verb}: {error}{self._versions()}") from error

    def _versions(self) -> str:
        """Return the versions of client and server; a server of another version may not know a request."""
        import chromadb

        try:
            return f" (the client is chromadb {chromadb.__version__}, the server reports {self.client.get_version()})"
        except Exception:  # noqa: BLE001 - the first error is the one to report
            return f" (the client is chromadb {chromadb.__version__}, and the server does not report its version)"


def _metadata(manifest: Manifest) -> dict[str, Any]:
    assert manifest.server is not None
    named = {_EMBEDDINGS: manifest.embeddings} if manifest.embeddings else {}
    return {_INDEX: manifest.server.index, _REVISION: manifest.server.revision, **named}
