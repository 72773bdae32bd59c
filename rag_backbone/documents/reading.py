"""Reads files of any supported format into documents; one broken file or row never stops the rest.

Formats other than text, Markdown, JSON and tables need the libraries of the extra `files`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from rag_backbone.checks import clause
from rag_backbone.documents.decoding import UndecodableError, decode, newlines
from rag_backbone.documents.fields import as_line, plain_fields, plain_text, text_and_fields
from rag_backbone.documents.html import read_html
from rag_backbone.documents.json_lines import JSONLine, parse, rows
from rag_backbone.documents.markdown import read_markdown
from rag_backbone.documents.pdf import read_pdf
from rag_backbone.documents.pieces import Extract, Note, ReadDocument, Skipped
from rag_backbone.documents.table import read_table
from rag_backbone.documents.word import read_word
from rag_backbone.text.unicode import clean_name

FileReader = Callable[[Path, str | None], Iterator[Extract | Skipped | Note]]
_MOST_ROWS = 50  # maximum number of problems listed individually per file


def read_file(path: Path, name: str, *, encoding: str | None = None) -> Iterator[ReadDocument | Skipped | Note]:
    """Read the documents of a file, and report what could not be read.

    Args:
        path: The file; its suffix, in any case, must be one of `SUFFIXES`.
        name: The file's name in documents and messages.
        encoding: Encoding of text that has no byte-order mark and is not UTF-8.
    """
    name = clean_name(name)
    counts: Counter[type] = Counter()
    try:
        if path.stat().st_size == 0:
            yield Skipped(name, "empty")
            return
        for extract in _READERS[path.suffix.lower()](path, encoding):
            pieces = _finished(extract, name, path) if isinstance(extract, Extract) else [replace(extract, name=name)]
            for piece in pieces:
                counts[type(piece)] += 1
                if isinstance(piece, ReadDocument) or counts[type(piece)] <= _MOST_ROWS:
                    yield piece
    except UndecodableError as error:
        counts[Skipped] += 1
        yield Skipped(name, str(error))
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        counts[Skipped] += 1
        yield Skipped(name, f"needs {_LIBRARIES[error.name]}: pip install 'dynprag[files]'", transient=True)
    except OSError as error:
        counts[Skipped] += 1
        yield Skipped(name, f"cannot be read: {error.strerror or error}", transient=True)
    if (more := counts[Skipped] - _MOST_ROWS) > 0:
        yield Skipped(name, f"and {more} more parts of this file")
    if (more := counts[Note] - _MOST_ROWS) > 0:
        yield Note(name, f"and {more} more changes in this file")
    if not counts[ReadDocument] and not counts[Skipped]:
        yield Skipped(name, "holds no text")


def _read_text(path: Path, encoding: str | None) -> Iterator[Extract]:
    yield Extract(newlines(decode(path.read_bytes(), encoding)))


def _read_json_lines(path: Path, encoding: str | None) -> Iterator[Extract | Skipped | Note]:
    for row in rows(path, encoding):
        yield from _of_row(row, f"line {row.number}")


def _read_json(path: Path, encoding: str | None) -> Iterator[Extract | Skipped | Note]:
    """Read a list of rows, or one row; JSON lines are often stored under this suffix as well."""
    try:
        value, note = parse(decode(path.read_bytes(), encoding))
    except ValueError as error:
        if isinstance(error, UndecodableError):
            raise
        if "Extra data" not in str(error):
            raise UndecodableError(str(error)) from error
        yield from _read_json_lines(path, encoding)
        return
    if note:
        yield Note("", note)
    if not isinstance(value, list):
        yield from _of_row(JSONLine(1, value), "")
        return
    for number, entry in enumerate(value, 1):
        yield from _of_row(JSONLine(number, entry), f"entry {number}")


def _read_parquet(path: Path, _: str | None) -> Iterator[Extract | Skipped | Note]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield from _of_row(JSONLine(number, row), f"row {number}")
    except pa.ArrowException as error:
        raise UndecodableError(f"is no Parquet file that can be read: {clause(error)}") from error


def _of_row(row: JSONLine, place: str) -> Iterator[Extract | Skipped | Note]:
    said = f"{place} " if place else ""
    if row.error:
        yield Skipped("", said + row.error)
        return
    if row.note:
        yield Note("", f"{place}: {row.note}" if place else row.note)
    try:
        text, fields = text_and_fields(row.value)
    except ValueError as error:
        yield Skipped("", said + str(error))
    else:
        yield Extract(text, fields, row.number if place else None, place)


def _finished(extract: Extract, name: str, path: Path) -> Iterator[ReadDocument | Skipped | Note]:
    """Turn an extract into a document of plain data, and report what had to be changed."""
    changes: list[str] = []
    text = plain_text(extract.text, changes.append)
    fields = plain_fields(extract.fields, changes.append)
    where = f"{extract.place}: " if extract.place else ""
    for change in changes:
        yield Note(name, where + change)
    if not text.strip():
        yield Skipped(name, f"{where}holds no text")
        return
    rows_of_json = path.suffix.lower() in _JSON
    title = as_line(fields.pop("title", None)) or as_line(fields.get("file_name"))
    if not title and not rows_of_json:
        title = clean_name(path.stem).replace("_", " ").replace("-", " ")
    own = f"{name}:{extract.number}" if rows_of_json and extract.number else name
    source = as_line(fields.pop("source", None)) or as_line(fields.get("url")) or own
    yield ReadDocument(text, title, source, fields, extract.number)


_JSON = (".jsonl", ".ndjson", ".json", ".parquet")
_READERS: Mapping[str, FileReader] = {
    ".txt": _read_text,
    ".text": _read_text,
    ".rst": _read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": read_table,
    ".tsv": read_table,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".pdf": read_pdf,
    ".docx": read_word,
}
_LIBRARIES = {"pypdf": "pypdf", "bs4": "beautifulsoup4", "docx": "python-docx", "pyarrow": "pyarrow"}

SUFFIXES = tuple(_READERS)
"""Lower-case suffixes of the files that `read_file` reads."""
