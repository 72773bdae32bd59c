"""The sources of an index: folders, files and documents, by the names under which they can be removed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from langgraph_dynrag.retrieval.manifest import Manifest
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_name

_NAMED = 10


@dataclass(frozen=True, slots=True)
class IndexSource:
    """A folder or file that was ingested, or documents that were added under one name."""

    name: str
    """The absolute path, or the documents' source."""
    kind: Literal["files", "documents"]
    items: int
    """Number of files or documents."""
    chunks: int

    def __str__(self) -> str:
        return f"{self.name}: {self.items} {self.kind}, {self.chunks} chunks"


def list_sources(manifest: Manifest) -> list[IndexSource]:
    """Return the sources of an index, folders and files first, each group by name."""
    found: dict[tuple[Literal["files", "documents"], str], list[list[str]]] = {}
    for entry in manifest.files.values():
        if entry["chunks"]:
            found.setdefault(("files", entry["root"]), []).append(entry["chunks"])
    for entry in manifest.documents.values():
        found.setdefault(("documents", entry["source"]), []).append(entry["chunks"])
    return [
        IndexSource(name, kind, len(entries), len({c for chunks in entries for c in chunks}))
        for (kind, name), entries in sorted(found.items(), key=lambda item: (item[0][0] != "files", item[0][1]))
    ]


def under(manifest: Manifest, path: Path) -> list[str]:
    """Return the keys of indexed files that equal a path, lie under it, or came from ingesting it."""
    name = clean_name(str(path))
    return [k for k, e in manifest.files.items() if Path(k).is_relative_to(name) or e["root"] == name]


def find_source(manifest: Manifest, source: str | Path) -> tuple[list[str], list[str]]:
    """Return the keys of the files and documents that a name refers to.

    A name is a folder or file that was ingested (or one inside it), the source of added documents, a file's name as
    search results show it (relative to its folder), or the id of an added document. The first match in this order
    counts.

    Raises:
        ConfigurationError: If nothing was indexed under that name.
    """
    name = str(source)
    files = under(manifest, Path(source).expanduser().resolve())
    documents = [] if isinstance(source, Path) else [k for k, e in manifest.documents.items() if e["source"] == name]
    if files or documents:
        return files, documents
    files = [k for k, e in manifest.files.items() if _relative(k, e["root"]) == Path(name)]
    if files:
        return files, []
    if name in manifest.documents:
        return [], [name]
    known = [s.name for s in list_sources(manifest)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    listed = ", ".join(known[:_NAMED]) + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else "")
    raise ConfigurationError(f"nothing in the index came from {name!r}{hint}; its sources are: {listed or 'none'}")


def _relative(key: str, root: str) -> Path:
    path = Path(key)
    return Path(path.name) if key == root or not path.is_relative_to(root) else path.relative_to(root)
