"""The results of reading a file: documents, skipped parts, and notes on changes. Plain data without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A text that was read from a file: a whole file, a row of a table, a line of JSON lines, or a page."""

    text: str
    title: str
    source: str
    """The file's name, with the line for JSON lines; a source that the file itself names takes precedence."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """All other fields, as JSON-compatible plain data; dates are ISO strings."""
    number: int | None = None
    """Line, row or page, counted from 1."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, a folder or a part of a file that was not read."""

    name: str
    reason: str
    deliberate: bool = False
    """Left out by a rule: hidden files, tool folders, `exclude` patterns."""
    transient: bool = False
    """May be readable next time without a change to the file: missing permission, or a library that is not
    installed."""


@dataclass(frozen=True, slots=True)
class Note:
    """A change or omission made while a file was read."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Extract:
    """A text with its fields, as a format's reader returns it; `reading` cleans it and turns it into a document."""

    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    place: str = ""
    """Position in the file, for messages: `"line 3"`."""
