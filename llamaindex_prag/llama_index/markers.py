"""References to adapters inside a prompt.

LlamaIndex passes an LLM nothing but text, from other threads, several times per query and after the query has returned,
so references to adapters must travel in the text. A marker names one adapter and its score, authenticated with a secret
of this process (HMAC-SHA-256). The author of a document or a question cannot know the code, so an imitated marker
remains plain text. Knows neither LlamaIndex nor models.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
import threading
from dataclasses import dataclass

from llamaindex_prag.adapters.adapter import AdapterKey

_SECRET = secrets.token_bytes(32)
_MARKER = re.compile(r"⟦adapter:([A-Za-z0-9_-]{22})([A-Za-z0-9_-]{11}):([0-9.e+-]{1,12}(?:x[0-9.e+-]{1,12})?)⟧")
# No blanks, because LlamaIndex splits texts that are too long for one prompt at blanks.
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Reference:
    """An adapter that a prompt asks for."""

    key: AdapterKey
    score: float
    """Retrieval score of the node."""
    strength: float = 1.0
    """Factor on the update."""


_issued: dict[str, AdapterKey] = {}
"""Adapter keys by the first part of a code, which names the adapter; the second authenticates score and strength."""


def marker(key: AdapterKey, score: float = 1.0, strength: float = 1.0) -> str:
    """Return the text that represents an adapter in prompts of this process."""
    score = score if math.isfinite(score) else 0.0  # the similarity of an all-zero embedding is NaN
    told = f"{score:.4g}" + ("" if strength == 1 else f"x{strength:.4g}")
    name = _code(key.digest, 16)
    with _lock:
        _issued[name] = key
    return f"⟦adapter:{name}{_code(f'{key.digest} {told}', 8)}:{told}⟧"


def _code(text: str, size: int) -> str:
    code = hmac.digest(_SECRET, text.encode(), hashlib.sha256)[:size]
    return base64.urlsafe_b64encode(code).decode().rstrip("=")


def take_markers(text: str) -> tuple[str, list[Reference]]:
    """Return the text without its markers, and the references in order.

    Anything that only looks like a marker stays in the text. Lines with nothing but markers are removed.
    """
    found: list[Reference] = []

    def taken(match: re.Match[str]) -> str:
        name, code, told = match.groups()
        with _lock:
            key = _issued.get(name)
        if key is None or not hmac.compare_digest(code, _code(f"{key.digest} {told}", 8)):
            return match[0]
        score, _, strength = told.partition("x")
        found.append(Reference(key, float(score), float(strength or 1)))
        return "\0"

    text = _MARKER.sub(taken, text.replace("\0", ""))
    if found:
        text = re.sub(r"(?:[ \t]*\n)*[ \t]*(?:\0[ \t\n]*)+", _gap, text).strip()
    return text, found


def has_markers(text: str) -> bool:
    """Return whether the text holds a marker issued by this process."""
    return any(match[1] in _issued for match in _MARKER.finditer(text))


def unsigned(text: str) -> int:
    """Return how many markers in a text were not signed by this process: another process's, or imitations."""
    return len(_MARKER.findall(take_markers(text)[0]))


def _gap(match: re.Match[str]) -> str:
    """Return the separator that replaces markers: a blank line, a line break or a space."""
    lines = match[0].count("\n")
    return "\n\n" if lines > 1 else "\n" if lines else " "
