"""Bytes to text, without guessing: byte-order marks are obeyed, otherwise the text must be strict UTF-8.

Text in another encoding is practically never valid UTF-8, so an encoding that the user names applies only to bytes that
are not UTF-8; a folder may contain both. Nothing is replaced: bytes that cannot be decoded are refused.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError

# UTF-32 comes first: its little-endian mark begins with the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Text in these encodings is also valid ASCII, hence valid UTF-8, but has another meaning there.
_SEVEN_BIT = ("utf-7", "hz", "iso2022")
_WIDE = ("utf-16", "utf-32")

_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"SQLite format 3\0", "a database"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"{\\rtf", "an RTF document"),
)
_HEAD = 8192
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class UndecodableError(ConfigurationError):
    """A file is not text, or not in a known encoding; the message says what to do."""


def check_encoding(encoding: str | None) -> None:
    """Refuse a name that is not a text encoding.

    Raises:
        ConfigurationError: Naming the value and an example.
    """
    if encoding is None:
        return
    try:
        "".encode(encoding)
    except (LookupError, TypeError, ValueError):  # ValueError: a name with a NUL
        raise ConfigurationError(
            f"encoding is {shown(encoding)}; the name of a text encoding is needed, such as encoding='cp1252'"
        ) from None


def decode(data: bytes, encoding: str | None = None, *, declared: str | None = None) -> str:
    """Return the text of a file's bytes, without a byte-order mark.

    Args:
        data: All bytes of the file.
        encoding: The user's encoding, for bytes that have no byte-order mark and are not UTF-8.
        declared: The encoding that the file itself declares, tried before `encoding`.

    Raises:
        UndecodableError: If the data is binary, or in none of these encodings.
    """
    if (marked := _marked(data)) is not None:
        return marked
    given = [name for name in (declared, encoding) if name]
    refuse_binary(data, text_in=given)
    first = [name for name in given if _known_as(name).startswith(_SEVEN_BIT)]
    failed = []
    for name in dict.fromkeys([*first, "utf-8", *given]):
        try:
            text = data.decode(name)
        except UnicodeDecodeError as error:
            failed.append(f"{name.upper() if name == 'utf-8' else name} ({_position(error)})")
            continue
        except LookupError:  # a file may declare anything
            continue
        if name == "utf-8" and "\0" in text and any(map(is_wide, given)):
            continue
        return text
    raise UndecodableError(
        f"not {' and not '.join(failed)}; pass its encoding, such as encoding='cp1252' (--encoding cp1252)"
    )


def stream_encoding(head: bytes) -> str | None:
    """Return the encoding that a byte-order mark names; None if the bytes do not begin with one."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


def is_wide(encoding: str | None) -> bool:
    """Return whether the encoding writes a line end in more than one byte."""
    return encoding is not None and _known_as(encoding).startswith(_WIDE)


def refuse_binary(data: bytes, *, text_in: list[str] | None = None) -> None:
    """Refuse bytes that are not text, judged by the signatures of file formats and by control characters.

    Args:
        data: The beginning of the file, or all of it.
        text_in: Encodings that were named; control characters mean nothing in UTF-16, UTF-32 and ISO-2022.

    Raises:
        UndecodableError: Saying what the data seems to be.
    """
    if found := next((what for magic, what in _MAGIC if data.startswith(magic)), None):
        raise UndecodableError(f"not text: it is {found}")
    if any(_known_as(name).startswith((*_WIDE, *_SEVEN_BIT)) for name in text_in or ()):
        return
    head = data[:_HEAD]
    # A stray control character does not make a text binary; in compressed data, they are more than a tenth.
    if (count := len(_CONTROL.findall(head))) <= 2 or count <= len(head) / 20:
        return
    even, odd = head[::2], head[1::2]
    for order, high, low in (("le", odd, even), ("be", even, odd)):
        if high.count(0) > len(high) * 0.7 and low.count(0) < len(low) * 0.1:
            raise UndecodableError(
                f"it seems to be UTF-16 without a byte-order mark; pass encoding='utf-16-{order}' "
                f"(--encoding utf-16-{order})"
            )
    raise UndecodableError("not text: it contains binary data")


def read_text_file(path: str | Path, encoding: str | None = None) -> str:
    r"""Return a text file's content, with line ends as `\n`.

    Raises:
        ConfigurationError: If the file cannot be read or decoded; the message names it.
    """
    check_encoding(encoding)
    try:
        return newlines(decode(Path(path).read_bytes(), encoding))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from error
    except UndecodableError as error:
        raise UndecodableError(f"{path} cannot be read: {error}") from error


def newlines(text: str) -> str:
    r"""Return the text with `\r\n` and `\r` as `\n`, as Python reads text files."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _marked(data: bytes) -> str | None:
    """Return the text of bytes that begin with a byte-order mark; None if they do not."""
    failure = None
    for mark, codec in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(codec)
            except UnicodeDecodeError as error:
                failure = f"its byte-order mark says {codec.removesuffix('-sig').upper()}, but the data is not"
                failure += f" ({_position(error)})"
    if failure:
        raise UndecodableError(failure)
    return None


def _known_as(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name.replace("_", "-")
    except LookupError:
        return ""


def _position(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at position {error.start}"
