"""Text as it comes in: lone surrogates are repaired once, at the border, so that nothing behind it meets them.

PDF extractors, cut emoji and some JSON leave halves of UTF-16 pairs in Python strings. Such a string can be printed
in parts, but neither encoded, tokenized, hashed nor stored. Knows nothing of files, models or frameworks.
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

    What was replaced is logged at WARNING, with the number of characters.

    Args:
        text: Any string.
        source: Where it comes from, for the log: `"the question"`, a file's name.
    """
    cleaned, lone = repaired(text)
    _report(lone, source)
    return cleaned


def clean_name(name: str) -> str:
    r"""Return a name that can be printed: bytes of a file name that are no UTF-8 are shown as `\xNN`."""
    return _SURROGATE.sub(_shown, name)


def clean_data(data: _T, source: str) -> _T:
    """Return plain data (strings, lists, tuples, mappings, and what they hold) with every string cleaned.

    Keys are cleaned too. Everything else is returned as it is. What holds no surrogate is returned unchanged.

    Args:
        data: Such as a document's metadata.
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
    """Return the text as `clean_text` does, and how many lone surrogates it held; nothing is logged."""
    if not _SURROGATE.search(text):
        return text, 0
    # Two halves that belong together are one character; through UTF-16 they become it.
    cleaned = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return cleaned, cleaned.count(_REPLACEMENT) - text.count(_REPLACEMENT)


def _report(lone: int, source: str) -> None:
    if lone:
        were = "surrogate was" if lone == 1 else "surrogates were"
        logger.warning("%s: %d lone %s replaced by U+FFFD", clean_name(source), lone, were)


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: it is empty, or spaces, line ends, joiners and control characters."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def _shown(match: re.Match[str]) -> str:
    # Python keeps a byte of a file name that it cannot decode as U+DC00 plus the byte.
    byte = ord(match[0]) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else _REPLACEMENT
