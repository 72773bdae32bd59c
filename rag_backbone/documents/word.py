"""Word documents, read with `python-docx`: paragraphs, text boxes and tables in order.

The library's own paragraphs omit tracked insertions, content controls and text boxes, so this module walks the body's
elements itself. Deleted text is left out. Headers, footers, notes and comments are not read, which is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rag_backbone.documents.decoding import UndecodableError
from rag_backbone.documents.pieces import Extract, Note

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # a second copy of a text box
_ASIDE = re.compile(r"/word/(footnote|endnote|comment|header|footer)s?\d*\.xml")
_WRITTEN = re.compile(rb"<w:t[ >][^<]*[^<>\s]")


def read_word(path: Path, encoding: str | None) -> Iterator[Extract | Note]:  # noqa: ARG001 - .docx is always UTF-8
    """Read the body as one document; its fields are the file's title, author and dates.

    Raises:
        UndecodableError: If it is not a .docx file.
    """
    import docx

    try:
        document = docx.Document(str(path))
        body = document.element.body
        for copy in list(body.iter(_FALLBACK)):
            copy.getparent().remove(copy)
        text = "\n\n".join(block for block in _blocks(body) if block.strip())
        fields = _about(document)
        aside = sorted({m[1] for part in document.part.package.iter_parts() if (m := _unread(part))})
    except OSError:
        raise
    except Exception as error:  # broken archives and broken XML can raise any error in the parser
        raise UndecodableError(f"not a Word document (.docx): {' '.join(str(error).split())}") from error
    if aside:
        yield Note("", f"the text of {', '.join(f'{name}s' for name in aside)} was left out")
    yield Extract(text, fields)


def _blocks(parent: Iterable[Any]) -> Iterator[str]:
    for child in parent:
        if child.tag == f"{_W}p":
            yield _text(child)
        elif child.tag == f"{_W}tbl":
            yield "\n".join(_cells(row) for row in _own(child, "tr"))
        else:  # content controls and similar elements contain paragraphs, all others none
            yield from _blocks(child)


def _cells(row: Any) -> str:
    found = (" ".join(" ".join(_text(p).split()) for p in cell.iter(f"{_W}p")) for cell in _own(row, "tc"))
    return " | ".join(found)


def _own(element: Any, name: str) -> Iterator[Any]:
    """Return the rows of a table, or the cells of a row, without those of nested tables."""
    for found in element.iter(f"{_W}{name}"):
        if next(found.iterancestors(element.tag)) is element:
            yield found


def _text(paragraph: Any) -> str:
    found = []
    for element in paragraph.iter(f"{_W}t", f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}p"):
        if element.tag == f"{_W}t":
            found.append(element.text or "")
        elif element.getparent().tag == f"{_W}r":  # a paragraph's settings also contain tabs
            found.append("\t" if element.tag == f"{_W}tab" else "\n")
        elif element.tag == f"{_W}p" and element is not paragraph:  # in a text box
            found.append("\n")
    return "".join(found)


def _unread(part: Any) -> re.Match[str] | None:
    found = _ASIDE.fullmatch(str(part.partname))
    return found if found and _WRITTEN.search(part.blob) else None


def _about(document: Any) -> dict[str, Any]:
    about = document.core_properties
    title = about.title or next(
        (p.text for p in document.paragraphs if p.text.strip() and p.style.name in ("Title", "Heading 1")), ""
    )
    found = {"title": title, "author": about.author, "created": about.created, "date": about.modified}
    return {name: value for name, value in found.items() if value}
