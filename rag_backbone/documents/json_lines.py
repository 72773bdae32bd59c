r"""JSON lines. A line ends only at `\n` or `\r\n`: JSON strings may contain U+2028, U+2029 and U+0085.

Files are read line by line, so that a file may be larger than memory.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_backbone.documents.decoding import (
    UndecodableError,
    check_encoding,
    decode,
    is_wide,
    refuse_binary,
    stream_encoding,
)
from rag_backbone.errors import ConfigurationError

logger = logging.getLogger(__name__)

_HEAD = 8192


@dataclass(frozen=True, slots=True)
class JSONLine:
    """A line that is not blank: its value, or why it has none."""

    number: int
    """Line number, from 1."""
    value: Any = None
    error: str = ""
    note: str = ""
    """A remark on a line that could be read."""


def rows(path: Path, encoding: str | None = None) -> Iterator[JSONLine]:
    """Parse the lines of a file, including broken ones.

    Args:
        path: The file.
        encoding: Encoding of lines that are not UTF-8, in a file without a byte-order mark.

    Raises:
        UndecodableError: If the file is not text.
        OSError: If the file cannot be read.
    """
    for number, line in _lines(path, encoding):
        if isinstance(line, UndecodableError):
            yield JSONLine(number, error=str(line))
        elif line.strip():
            try:
                value, note = parse(line)
            except ValueError as error:
                yield JSONLine(number, error=str(error))
            else:
                yield JSONLine(number, value, note=note)


def read_json_lines(path: str | Path, encoding: str | None = None) -> Iterator[tuple[int, Any]]:
    """Parse a file in which every line must be valid; blank lines are skipped.

    Returns:
        Pairs of line number, from 1, and value.

    Raises:
        ConfigurationError: If the file cannot be read, or a line is not JSON; the message names file and line.
    """
    check_encoding(encoding)
    try:
        for row in rows(Path(path), encoding):
            if row.error:
                raise ConfigurationError(f"{path}, line {row.number} {row.error}")
            if row.note:
                logger.warning("%s, line %d: %s", path, row.number, row.note)
            yield row.number, row.value
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    except UndecodableError as error:
        raise UndecodableError(f"{path} cannot be read: {error}") from error


def parse(text: str) -> tuple[Any, str]:
    """Parse JSON.

    Returns:
        The value, and a note if an object repeats a key (the last one is used), otherwise `""`.

    Raises:
        ValueError: Saying what is wrong and in which column.
    """
    twice: dict[str, None] = {}

    def paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice.update(dict.fromkeys(name for name in found if names.count(name) > 1))
        return found

    try:
        value = json.loads(text.lstrip("\ufeff"), object_pairs_hook=paired)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"is not JSON: {error.msg} at {where}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise ValueError(f"is not JSON: {error}") from error
    return value, f"the key {', '.join(map(repr, twice))} occurs twice; the last one is used" if twice else ""


def _lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str | UndecodableError]]:
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(0)
        marked = stream_encoding(head)
        if marked in (None, "utf-8-sig") and not is_wide(encoding):
            refuse_binary(head, text_in=[encoding] if encoding else [])
            for number, line in enumerate(file, 1):
                yield number, _decoded(line, encoding)
            return
        # A line end takes more than one byte here.
        number = 0
        try:
            for text in io.TextIOWrapper(file, marked or encoding, newline="\n"):
                number += 1
                yield number, text.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UndecodableError(f"the text after line {number} is not {error.encoding}") from error


def _decoded(line: bytes, encoding: str | None) -> str | UndecodableError:
    try:
        return decode(line.rstrip(b"\r\n"), encoding)
    except UndecodableError as error:
        return UndecodableError(f"is {error}")
