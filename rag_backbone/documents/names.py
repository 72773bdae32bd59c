"""Names of documents, taken from their metadata; readers and loaders use different fields.

LlamaIndex's readers set `file_name`, LangChain's loaders `source`, others a URL or a path. Imports neither framework.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

_TITLES = ("title", "documenttitle", "doctitle", "headline", "subject")
_FILES = ("filename", "filepath", "path", "source", "url", "uri", "link", "sourceurl", "href")
_SOURCES = ("source", "url", "sourceurl", "uri", "link", "href", "filepath", "path", "filename")
_PAGES = ("pagelabel", "pagenumber", "page")
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}$")
# Machine-made identifiers: SHA-256, UUID, database keys.
_OPAQUE = re.compile(r"(?:[0-9a-f]{4,}-?){3,}(?:[:#].*)?|\d+", re.IGNORECASE)
_PLACE = re.compile(r":\d+$")
_WORDS = 60


def title_of(metadata: Mapping[Any, Any]) -> str:
    """Return a document's title, or the name of its file or page without suffix; `""` if there is neither.

    `{"title": "The bridge"}` gives "The bridge", `{"file_name": "old_bridge.pdf"}` and `{"source":
    "https://example.org/old-bridge.html"}` give "old bridge". A position in a file (`"people.jsonl:7"`) does not name a
    document, so it gives no title.
    """
    fields = _fields(metadata)
    return _first_of(_TITLES, fields) or _first_of(_FILES, {n: _stem(fields.get(n, "")) for n in _FILES})


def page_of(metadata: Mapping[Any, Any]) -> str:
    """Return the page number or label in a document's metadata; `""` if there is none."""
    return _first_of(_PAGES, _fields(metadata))


def source_of(metadata: Mapping[Any, Any]) -> str:
    """Return where a document comes from: its source, URL, path or file name; `""` if the metadata does not say."""
    return _first_of(_SOURCES, _fields(metadata))


def readable_name(title: str, source: str, text: str, id_: str = "") -> str:
    """Return a name that a person recognises: title, source, or first words; a hash only as a last resort."""
    if title:
        return title
    if source and source != id_ and not is_opaque(source):
        return source
    words = " ".join(text.split())
    if len(words) > _WORDS:
        cut = words[:_WORDS]
        words = (cut.rsplit(" ", 1)[0] if " " in cut else cut).rstrip(" ,;:.") + " ..."
    return words or source or id_


def is_opaque(name: str) -> bool:
    """Return whether a name is a hash, a UUID or a bare number."""
    return _OPAQUE.fullmatch(name) is not None


def _first_of(names: Sequence[str], fields: Mapping[str, str]) -> str:
    return next((fields[name] for name in names if fields.get(name)), "")


def _fields(metadata: Mapping[Any, Any]) -> dict[str, str]:
    # "file_name", "File Name" and "fileName" are the same field; the first one with a value wins.
    found: dict[str, str] = {}
    for key, value in metadata.items():
        if text := _text(value):
            found.setdefault(re.sub(r"[\s_-]", "", str(key)).lower(), text)
    return found


def _text(value: Any) -> str:
    """Return a field as a text; `""` if it is not a text, number or path."""
    if isinstance(value, str):
        return str.__str__(value).strip()  # an enumeration's own __str__ would give its name
    is_name = isinstance(value, int | PurePath | UUID) and not isinstance(value, bool)
    return str(value) if is_name else ""


def _stem(source: str) -> str:
    if not source or _PLACE.search(source):
        return ""
    try:
        address = urlsplit(source) if "://" in source else None
    except ValueError:  # not a URL after all
        address = None
    path = source if address is None else unquote(address.path)
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    if not name:
        return "" if address is None else address.netloc
    stem = _SUFFIX.sub("", name)
    if is_opaque(stem):
        return ""
    return re.sub(r"[_-]+", " ", stem).strip()
