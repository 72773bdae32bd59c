"""The report of a change to an index."""

from __future__ import annotations

from dataclasses import dataclass

from rag_backbone.documents import told


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Counts and findings of a change to an index."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    """Number of unchanged files or documents."""
    embedded: int = 0
    """Number of chunks that had to be embedded."""
    chunks: int = 0
    """Number of chunks that are now in the index."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Name and reason of each file, folder, row or document that is not in the index, including unchanged ones."""
    notes: tuple[tuple[str, str], ...] = ()
    """Name of each file or document of which something was changed or left out on reading, and what."""

    def __str__(self) -> str:
        counts = (
            f"{self.added} files added, {self.changed} changed, {self.removed} removed, {self.unchanged} unchanged; "
            f"{self.embedded} chunks embedded, {self.chunks} in the index"
        )
        return f"{counts}\n{told(self.skipped, self.notes)}".rstrip()
