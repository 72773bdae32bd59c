"""What reading a file yields: documents, what was skipped, and what was changed. Plain data without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A text that was read from a file: a whole file, a row of a table or of JSON lines, or a page."""

    text: str
    title: str
    source: str
    """The file's name, and the line for JSON lines; what the file itself names as its source takes precedence."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """All other fields, as plain data that JSON can hold; dates are ISO strings."""
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
    """May be readable next time although the file stays the same: no permission, a library that is not installed."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was changed or left out while a file was read."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Extract:
    """A text with its fields, as a format's reader finds them; `reading` cleans it and makes a document of it."""

    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    place: str = ""
    """Where in the file, for messages: `"line 3"`."""
