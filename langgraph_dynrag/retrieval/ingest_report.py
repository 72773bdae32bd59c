"""The report of a change of an index."""

from __future__ import annotations

from dataclasses import dataclass

from rag_backbone.documents import told


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a change of an index did."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    """Files, or documents."""
    embedded: int = 0
    """Chunks that had to be embedded."""
    chunks: int = 0
    """Chunks in the index now."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Names and reasons of what is not in the index: files, folders, rows and documents, unchanged ones included."""
    notes: tuple[tuple[str, str], ...] = ()
    """Names, and what was changed or left out while a file or document was read."""

    def __str__(self) -> str:
        counts = (
            f"{self.added} files added, {self.changed} changed, {self.removed} removed, {self.unchanged} unchanged; "
            f"{self.embedded} chunks embedded, {self.chunks} in the index"
        )
        return f"{counts}\n{told(self.skipped, self.notes)}".rstrip()
