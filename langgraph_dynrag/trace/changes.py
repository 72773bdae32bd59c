"""What changed from a discarded draft to the text that replaced it: words kept, removed and added."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from langgraph_dynrag.trace.markup import plain
from rag_backbone.text.units import words

_MOST_WORDS = 2000
"""Longer texts are compared as wholes, because the time for a comparison grows with the square of their length."""


class Change(NamedTuple):
    """A part of two texts."""

    kind: Literal["kept", "removed", "added"]
    text: str


def changes(before: str, after: str) -> list[Change]:
    """Return the parts of both texts in order: what they share, what only the first and what only the second has.

    The removed and kept parts joined are `before`; the added and kept ones are `after`.
    """
    old, new = _pieces(before), _pieces(after)
    if max(len(old), len(new)) > _MOST_WORDS:
        parts = [Change("kept", before)] if before == after else [Change("removed", before), Change("added", after)]
        return [part for part in parts if part.text]
    found: list[Change] = []
    for kind, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(Change("kept", "".join(old[i:j])))
            continue
        found += [Change("removed", "".join(old[i:j]))] if j > i else []
        found += [Change("added", "".join(new[k:m]))] if m > k else []
    return found


def marked(parts: Sequence[Change], side: Literal["removed", "added"]) -> str:
    """Return one of the two texts as HTML, with its own parts in `del` or `ins` elements."""
    tag = "del" if side == "removed" else "ins"
    return "".join(
        plain(part.text) if part.kind == "kept" else f"<{tag}>{plain(part.text)}</{tag}>"
        for part in parts
        if part.kind in ("kept", side)
    )


def _pieces(text: str) -> list[str]:
    """Return the words, each with the space before it, and what stands between them."""
    pieces: list[str] = []
    at = 0
    for start, end in words(text):
        gap = text[at:start]
        if gap.strip() or not gap:
            pieces += [gap] if gap else []
            pieces.append(text[start:end])
        else:
            pieces.append(text[at:end])
        at = end
    return pieces + ([text[at:]] if at < len(text) else [])
