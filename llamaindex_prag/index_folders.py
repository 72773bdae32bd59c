"""Read what an index in a folder contains: one that LlamaIndex persisted, or a `LocalIndex`.

For a `LocalIndex` only the manifest is read, which names files and documents but not their texts. Needs the packages of
neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llamaindex_prag.store.reconcile import IndexContents
from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for
from rag_backbone.text.unicode import clean_name

_MANIFEST = "manifest.json"
_PERSISTED = "docstore.json"


def folder_contents(folder: Path) -> IndexContents:
    """Return the contents of the index in a folder.

    Raises:
        ConfigurationError: If the folder has no index, or it cannot be read.
    """
    if (folder / _PERSISTED).is_file():
        with needed_for(f"the index of LlamaIndex in {clean_name(str(folder))}"):
            from llamaindex_prag.llama_index.index_contents import contents_of

        return contents_of(folder)
    if (folder / _MANIFEST).is_file():
        return _of_local_index(folder)
    raise ConfigurationError(
        f"{clean_name(str(folder))} holds no index: neither {_PERSISTED}, which "
        f"index.storage_context.persist(FOLDER) writes, nor the {_MANIFEST} of a LocalIndex (`dynprag index`)"
    )


def _of_local_index(folder: Path) -> IndexContents:
    name = f"the index in {clean_name(str(folder))}"
    try:
        content: dict[str, Any] = json.loads((folder / _MANIFEST).read_text("utf-8"))
        files, documents = content["files"], content["documents"]
        # A document goes by its file's path (`dynprag parametrize`), or by its name in search results.
        names = {shown for path, entry in files.items() if entry["chunks"] for shown in (path, _relative(path, entry))}
        names |= {shown for id_, entry in documents.items() for shown in (id_, entry["source"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{name} cannot be read, nothing was removed: {error!r}") from error
    return IndexContents(name=name, documents=dict.fromkeys(names), parts=True)


def _relative(path: str, entry: dict[str, Any]) -> str:
    file, root = Path(path), Path(entry["root"])
    return file.name if file == root or not file.is_relative_to(root) else file.relative_to(root).as_posix()
