"""The manifest of an index: its files and added documents, in one JSON file that is replaced atomically.

The manifest is authoritative: chunks that it does not name are not found, even if the vector store still has them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langgraph_dynrag.retrieval.chroma_folder import FileState, file_state
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import write_json
from rag_backbone.text.unicode import clean_name

NAME = "manifest.json"
_VERSION = 2
_WITH_SERVER = 3  # a version that does not know servers must not take the vectors for lost


@dataclass
class ServerCollection:
    """The collection of a Chroma server that holds an index's vectors."""

    name: str
    index: str
    """A random id of the index, which the collection has in its metadata."""
    revision: int = 0
    """Number of times that the manifest was written."""


@dataclass
class Manifest:
    """The content of an index.

    The entry of a file has its `root` (the folder or file that was ingested), `size`, `mtime_ns`, `sha256`, how it was
    read (`reader`, `splitter`, `encoding`), its `chunks` (ids), and what was `skipped` or noted (`notes`). The entry of
    a document has its `source`, `sha256`, `splitter` and `chunks`.
    """

    embeddings: str | None = None
    """Name of the embeddings that computed the vectors."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Entries of ingested files, by absolute path."""
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Entries of added documents, by id."""
    server: ServerCollection | None = None
    """Where the vectors are; None for the index's own folder."""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an index, or return an empty one if there is none.

        Raises:
            ConfigurationError: If the manifest is damaged or of another version.
        """
        path = folder / NAME
        if not path.is_file():
            return cls()
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            version = content["version"]
            if version in (_VERSION, _WITH_SERVER):
                server = ServerCollection(**content["server"]) if version == _WITH_SERVER else None
                return cls(content["embeddings"], content["files"], content["documents"], server=server)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is damaged ({error}); delete {folder} and index again") from error
        raise ConfigurationError(
            f"{folder} was written by another version (format {version}, this one reads {_WITH_SERVER}); "
            "delete it and index again"
        )

    def write(self, folder: Path) -> None:
        """Replace the manifest file atomically."""
        content: dict[str, Any] = {
            "version": _VERSION,
            "embeddings": self.embeddings,
            "files": self.files,
            "documents": self.documents,
        }
        if self.server is not None:
            self.server.revision += 1
            content.update(version=_WITH_SERVER, server=asdict(self.server))
        write_json(folder / NAME, content)

    def check_place(self, folder: Path, collection: str | None) -> None:
        """Check that the index is opened where its vectors are.

        Args:
            folder: The index's folder.
            collection: Name of the collection in a Chroma server; None for the folder itself.

        Raises:
            ConfigurationError: If the vectors are somewhere else.
        """
        if not self.used():
            return
        if self.server is not None and self.server.name != collection:
            raise ConfigurationError(
                f"the vectors of the index {folder} are in the collection {self.server.name!r} of a Chroma server; "
                f"open it with LocalIndex({str(folder)!r}, client=chromadb.HttpClient(...), "
                f"collection={self.server.name!r})"
            )
        if self.server is None and collection is not None:
            raise ConfigurationError(
                f"the index {folder} has its vectors in the folder itself; open it without client=, or ingest into a "
                "new folder with client="
            )

    def chunk_ids(self) -> list[str]:
        """Return the ids of all chunks, sorted."""
        return sorted(self.used())

    def used(self) -> Counter[str]:
        """Return the number of files and documents that contain each chunk, by id."""
        return Counter(c for e in (*self.files.values(), *self.documents.values()) for c in set(e["chunks"]))


def file_key(path: Path) -> str:
    """Return a file's key: its absolute path in printable form."""
    return clean_name(str(path.resolve()))


def file_path(key: str, entry: Mapping[str, Any]) -> Path:
    """Return the path of a file; a name that is not UTF-8 is also stored as bytes in its entry."""
    return Path(os.fsdecode(bytes.fromhex(entry["bytes"]))) if "bytes" in entry else Path(key)


def state_of(folder: Path) -> FileState:
    """Return a value that changes whenever any process changes the index."""
    return file_state(folder / NAME)


def touch(folder: Path) -> None:
    """Signal to other processes that the index has changed although the manifest's content has not."""
    os.utime(folder / NAME)
