"""Files as passages: paragraphs joined up to a length; rows of JSON Lines files and tables unchanged."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamaindex_prag.passages import Passage
from rag_backbone.documents import SUFFIXES, Findings, ReadDocument, check_encoding, find_files, read_file, told
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_name

logger = logging.getLogger(__name__)

_PARAGRAPH_CHARACTERS = 1200
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n")
_ROWS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")


def read_passages(
    source: Path,
    *,
    encoding: str | None = None,
    exclude: Sequence[str] | str = (),
    hidden: bool = False,
    findings: Findings | None = None,
) -> list[Passage]:
    """Return the passages of a folder or file, read in the same way as by `LocalIndex.ingest`.

    Args:
        source: The folder or file.
        encoding: Encoding of files that are not UTF-8 and have no byte-order mark, such as `"cp1252"`.
        exclude: Glob patterns of names or relative paths to leave out.
        hidden: Whether hidden files and folders, and tool folders, are read as well.
        findings: Collects what was skipped or changed, which is logged at WARNING in any case.

    Raises:
        ConfigurationError: If there is nothing to read.
    """
    check_encoding(encoding)
    told_to = Findings() if findings is None else findings
    found = find_files(source, SUFFIXES, exclude=exclude, hidden=hidden)
    for skipped in found.skipped:
        told_to.add(skipped)
    passages: list[Passage] = []
    for file in found.files:
        document = clean_name(file.path.resolve().as_posix())  # full path: two folders may each have a README.md
        for piece in read_file(file.path, file.name, encoding=encoding):
            if isinstance(piece, ReadDocument):
                passages += _passages(piece, document, rows=file.path.suffix.lower() in _ROWS)
            else:
                told_to.add(piece)
    if not passages:
        raise ConfigurationError(f"{source} holds no text\n{told(told_to.skipped, told_to.notes)}".rstrip())
    told_to.log(logger, clean_name(str(source)))
    return passages


def _passages(read: ReadDocument, document: str, *, rows: bool) -> Iterator[Passage]:
    if rows:
        part = read.metadata.get("id") or read.title or read.number
        yield Passage(read.text, read.title, document if part is None else f"{document}#{part}")
        return
    for text in _paragraphs(read.text):
        yield Passage(text, read.title, document)


def _paragraphs(text: str) -> list[str]:
    joined: list[str] = []
    for paragraph in _PARAGRAPH_END.split(text):
        if not (stripped := paragraph.strip()):
            continue
        if joined and len(joined[-1]) + len(stripped) < _PARAGRAPH_CHARACTERS:
            joined[-1] += "\n\n" + stripped
        else:
            joined.append(stripped)
    return joined
