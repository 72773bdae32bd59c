"""Word documents through `python-docx`: paragraphs and tables in their order.

Headers, footers, footnotes, comments and text boxes are not part of what the library calls the body.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_backbone.documents.decoding import UndecodableError
from rag_backbone.documents.pieces import Extract


def read_word(path: Path, encoding: str | None) -> Iterator[Extract]:  # noqa: ARG001 - .docx is always UTF-8
    """Read the body as one document; its fields are the file's title, author and dates.

    Raises:
        UndecodableError: If it is not a .docx file.
    """
    import docx
    from docx.table import Table

    try:
        document = docx.Document(str(path))
        parts = [
            "\n".join(_rows(block)) if isinstance(block, Table) else block.text
            for block in document.iter_inner_content()
        ]
        fields = _about(document)
    except OSError:
        raise
    except Exception as error:  # broken archives and broken XML raise whatever the parser meets
        raise UndecodableError(f"not a Word document (.docx): {' '.join(str(error).split())}") from error
    yield Extract("\n\n".join(part for part in parts if part.strip()), fields)


def _rows(table: Any) -> Iterator[str]:
    for row in table.rows:
        cells: list[Any] = []
        for cell in row.cells:
            if not cells or cell._tc is not cells[-1]._tc:  # noqa: SLF001 - a merged cell is listed once a column
                cells.append(cell)
        yield " | ".join(" ".join(cell.text.split()) for cell in cells)


def _about(document: Any) -> dict[str, Any]:
    about = document.core_properties
    title = about.title or next(
        (p.text for p in document.paragraphs if p.text.strip() and p.style.name in ("Title", "Heading 1")), ""
    )
    found = {"title": title, "author": about.author, "created": about.created, "date": about.modified}
    return {name: value for name, value in found.items() if value}
