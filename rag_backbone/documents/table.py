"""Comma- or tab-separated tables, one document per row, with a line "column: value" for each non-empty cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from rag_backbone.documents.decoding import decode
from rag_backbone.documents.pieces import Extract, Skipped

_SEPARATORS = ",;\t|"  # spreadsheets write semicolons in locales with a decimal comma
_METADATA = 200  # characters: longer cells are text, not something to filter or sort by


def read_table(path: Path, encoding: str | None) -> Iterator[Extract | Skipped]:
    """Read the rows below the header; cells of up to 200 characters are also fields."""
    text = decode(path.read_bytes(), encoding)
    first = text.lstrip("\r\n").partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(_SEPARATORS, key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header: list[str] = []
    number = 0
    while True:
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            yield Skipped("", f"line {lines.line_num}: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            continue
        number += 1
        names = [*header, *[""] * (len(cells) - len(header))]
        row = {
            name or f"column {i}": cell.strip()
            for i, (name, cell) in enumerate(zip(names, cells, strict=False), 1)
            if cell.strip()
        }
        fields = {
            name.lower() if name.lower() in ("title", "source", "url") else name: cell
            for name, cell in row.items()
            if len(cell) <= _METADATA
        }
        lined = "\n".join(f"{name}: {cell}" for name, cell in row.items())
        yield Extract(lined, {**fields, "row": number}, number, f"row {number}")
