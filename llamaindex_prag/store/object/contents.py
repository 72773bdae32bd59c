"""The bytes behind the facts: encoded adapters, side entries and layouts, through the local cache."""

from __future__ import annotations

import hashlib

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterDamagedError, AdapterRefusedError
from llamaindex_prag.store import entries
from llamaindex_prag.store.object.causal import Dot
from llamaindex_prag.store.object.disk_cache import DiskCache
from llamaindex_prag.store.object.facts import AdapterFact, SideFact
from llamaindex_prag.store.object.remote import RemoteFiles
from llamaindex_prag.store.object.state import State

OBJECTS = "objects"
LAYOUTS = "layouts"


class Contents:
    """Reads and writes the objects of facts.

    Args:
        files: The store's objects.
        cache: The local cache.
    """

    def __init__(self, files: RemoteFiles, cache: DiskCache) -> None:
        self._files, self._cache = files, cache
        self._layouts: dict[str, Layout] = {}

    def write(self, dot: Dot, digest: str, content: bytes) -> None:
        """Write the object of a new fact."""
        self._files.write(object_name(dot, digest), content)

    def keep(self, digest: str, content: bytes) -> None:
        """Put an object's content into the local cache."""
        self._cache.write(digest, content)

    def discard(self, digests: set[str]) -> None:
        """Delete objects from the local cache."""
        for digest in digests:
            self._cache.discard(digest)

    def address(self, dot: Dot, fact: AdapterFact | SideFact) -> str:
        """Return the URL of a fact's object."""
        return self._files.address(object_name(dot, fact.digest))

    def read(self, dot: Dot, fact: AdapterFact | SideFact, *, cached: bool = True) -> bytes:
        """Return the content of a fact's object, from the cache if it is there.

        Raises:
            FileNotFoundError: If the object was deleted.
            AdapterDamagedError: If it is not what was written.
        """
        content = self._cache.read(fact.digest) if cached else None
        if content is None:
            content = self._files.read(object_name(dot, fact.digest))
            if cached:
                self._cache.write(fact.digest, content)
        return content

    def layout(self, digest: str) -> Layout:
        """Return the layout with this digest.

        Raises:
            AdapterDamagedError: If it is missing, unreadable, or has another digest.
        """
        if digest not in self._layouts:
            name = next((n for n in self._files.listed(LAYOUTS) if n.startswith(f"{digest}-")), None)
            if name is None:
                raise AdapterDamagedError(f"the layout {digest[:12]} is not in {self._files.address(LAYOUTS)}")
            layout = Layout.from_dict(entries.from_json(self._files.read(f"{LAYOUTS}/{name}")))
            if layout.digest != digest:
                raise AdapterDamagedError(f"{self._files.address(LAYOUTS)}/{name} has digest {layout.digest[:12]}")
            self._layouts[digest] = layout
        return self._layouts[digest]

    def settle_layout(self, state: State, recipe: str, layout: Layout) -> None:
        """Store a layout the first time; compare it with that of the recipe's other adapters.

        Raises:
            AdapterRefusedError: If they have another layout.
        """
        others = {fact.layout for _, fact in state.all_of(AdapterFact) if fact.recipe == recipe} - {layout.digest}
        if others:  # removed ones, whose bytes wait for a garbage collection, do not count
            others &= {fact.layout for _, fact in state.adapters() if fact.recipe == recipe}
        if others:
            other = self.layout(min(others))
            raise AdapterRefusedError(
                f"the adapter has {layout!r} with digest {layout.digest[:12]}; adapters of recipe {recipe[:12]} "
                f"have {other!r} with digest {other.digest[:12]}. Another set of layers or another rank needs another "
                "recipe."
            )
        if layout.digest not in self._layouts:
            content = entries.as_json(layout.to_dict())
            name = f"{layout.digest}-{hashlib.sha256(content).hexdigest()}"
            self._files.write(f"{LAYOUTS}/{name}", content)
            self._layouts[layout.digest] = layout


def object_name(dot: Dot, digest: str) -> str:
    """Return the name of a fact's object; no other fact has it, so it can be deleted with the fact."""
    return f"{OBJECTS}/{dot[0]}-{dot[1]}-{digest}"
