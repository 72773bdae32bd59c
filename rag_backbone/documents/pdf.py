"""PDF files, one document per page, read with `pypdf`. Scanned pages have no text: there is no OCR."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag_backbone.documents.decoding import UndecodableError
from rag_backbone.documents.pieces import Extract, Skipped


def read_pdf(path: Path, encoding: str | None) -> Iterator[Extract | Skipped]:  # noqa: ARG001 - PDF defines its own
    """Read the pages that have text; their fields are the page's number and the file's title, author and date.

    Raises:
        UndecodableError: If the file is broken, encrypted or scanned.
    """
    from pypdf import PdfReader

    try:
        with _quiet():
            reader = PdfReader(path)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UndecodableError("the PDF is encrypted and needs a password")
            count = len(reader.pages)
            fields = _about(reader)
    except (UndecodableError, OSError):
        raise
    except Exception as error:  # a broken file can raise any error in the parser
        raise UndecodableError(f"the PDF cannot be read: {_said(error)}") from error
    blank = []
    for number in range(1, count + 1):
        place = f"page {number}"
        try:
            with _quiet():
                text = reader.pages[number - 1].extract_text()
        except Exception as error:  # noqa: BLE001 - as above
            yield Skipped("", f"{place} cannot be read: {_said(error)}")
            continue
        if text.strip():
            yield Extract(text, {**fields, "page": number}, number, place)
        else:
            blank.append(number)
    if count and len(blank) == count:
        raise UndecodableError("the PDF has no text; if it is scanned, run text recognition (OCR) on it first")
    if blank:
        listed = ", ".join(map(str, blank[:10])) + (" ..." if len(blank) > 10 else "")
        yield Skipped("", f"{len(blank)} of {count} pages have no text (blank or scanned): {listed}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's remarks on damaged files out of the application's log; real problems are reported."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def _about(reader: Any) -> dict[str, Any]:
    about = reader.metadata
    if about is None:
        return {}
    found = {"title": about.title, "author": about.author}
    try:
        found["date"] = about.modification_date or about.creation_date
    except ValueError:  # not a date
        found["date"] = about.get("/ModDate") or about.get("/CreationDate")
    return {name: value for name, value in found.items() if value}


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
