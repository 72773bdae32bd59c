"""Repairs lone surrogates in incoming text once, at the boundary, so that later code never meets them.

PDF extractors, cut emoji and some JSON leave halves of UTF-16 pairs in Python strings. Such a string cannot be encoded,
tokenised, hashed or stored. Knows nothing of files, models or frameworks.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_T = TypeVar("_T")


def clean_text(text: str, source: str) -> str:
    """Return the text as valid Unicode: surrogate pairs are joined, lone surrogates become U+FFFD.

    The number of replaced characters is logged at WARNING.

    Args:
        text: Any string.
        source: The origin of the text, for the log: `"the question"`, a file's name.
    """
    cleaned, lone = repaired(text)
    _report(lone, source)
    return cleaned


def clean_name(name: str) -> str:
    r"""Return a printable name: bytes of a file name that are not valid UTF-8 are shown as `\xNN`."""
    return _SURROGATE.sub(_shown, name)


def clean_data(data: _T, source: str) -> _T:
    """Return plain data (strings, lists, tuples, mappings, and their contents) with every string cleaned.

    Keys are cleaned too. Everything else, and data without surrogates, is returned unchanged.

    Args:
        data: The data, such as a document's metadata.
        source: As for `clean_text`.
    """
    total = 0

    def clean(value: Any) -> Any:
        nonlocal total
        if isinstance(value, str):
            cleaned, lone = repaired(value)
            total += lone
            return cleaned
        if isinstance(value, Mapping):
            return {clean(k): clean(v) for k, v in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, tuple) and type(value) is tuple:
            return tuple(clean(item) for item in value)
        return value

    found: _T = clean(data)
    _report(total, source)
    return found


def repaired(text: str) -> tuple[str, int]:
    """Return the text as `clean_text` does, and the number of lone surrogates in it, without logging."""
    if not _SURROGATE.search(text):
        return text, 0
    # A round trip through UTF-16 joins two halves that belong together into one character.
    cleaned = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return cleaned, cleaned.count(_REPLACEMENT) - text.count(_REPLACEMENT)


def _report(lone: int, source: str) -> None:
    if lone:
        were = "surrogate was" if lone == 1 else "surrogates were"
        logger.warning("%s: %d lone %s replaced by U+FFFD", clean_name(source), lone, were)


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: it is empty, or only spaces, line ends, joiners and control characters."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def _shown(match: re.Match[str]) -> str:
    # Python represents an undecodable byte of a file name as U+DC00 plus the byte.
    byte = ord(match[0]) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else _REPLACEMENT
