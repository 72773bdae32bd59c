"""Retrieved documents as passages: cleaned, deduplicated, cut to a budget, numbered, and rendered into a prompt.

A passage is plain data, which any checkpointer can save. Documents are untrusted, so their text is prevented from
posing as part of the prompt: it is reduced to one line without control characters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from rag_backbone.documents.names import page_of, readable_name, source_of, title_of
from rag_backbone.plain_data import plain_metadata
from rag_backbone.text.scripts import visible
from rag_backbone.text.unicode import clean_data, clean_text

CountTokens = Callable[[str], int]

# Texts are cut to this length before any further processing, because documents may be megabytes long.
_MAX_CHARACTERS = 20_000
_ORIGINAL = "original_sha256"
LEFT_OUT = "metadata_left_out"


class Passage(TypedDict):
    """A retrieved text."""

    id: str
    """Stable for the same text and source, whichever retriever found it."""
    text: str
    title: str
    source: str
    """Origin of the text, as far as the retriever reports it."""
    score: float | None
    metadata: dict[str, Any]
    """The retriever's metadata as plain data; `metadata_left_out` lists entries without such a form."""


class Source(TypedDict):
    """A numbered passage, returned with an answer."""

    number: int
    id: str
    text: str
    title: str
    source: str
    score: float | None
    query: str
    """The query that found it."""


def passage(text: str, metadata: dict[str, Any], document_id: str | None) -> Passage | None:
    """Return a cleaned passage; None if no text is left."""
    text, metadata = clean_text(text, "a retrieved document"), clean_data(metadata, "a document's metadata")
    document_id = clean_text(str(document_id or ""), "a document's id")
    cleaned = clean(text[:_MAX_CHARACTERS])
    if not cleaned:
        return None
    title = clean(_title(metadata))[:200]
    source = clean(source_of(metadata) or title or document_id)[:500]
    kept, lost = plain_metadata(metadata, "a document's metadata")
    if lost:
        kept[LEFT_OUT] = lost
    score = kept.get("score")
    if cleaned != text.strip():
        kept[_ORIGINAL] = hashlib.sha256(text.strip().encode()).hexdigest()
    return Passage(
        id=document_id or hashlib.sha256(f"{source}\0{cleaned}".encode()).hexdigest()[:24],
        text=cleaned,
        title=title,
        source=source,
        score=float(score) if isinstance(score, int | float) and not isinstance(score, bool) else None,
        metadata=kept,
    )


def original_hash(p: Passage) -> str | None:
    """Return the SHA-256 of the original text, stripped; None if `p["text"]` is that text."""
    found = p["metadata"].get(_ORIGINAL)
    return found if isinstance(found, str) else None


def name_of(document: Mapping[str, Any]) -> str:
    """Return the name that a person recognises a passage or source by: its title, source or first words, not its id."""
    text = document.get("text") or ""
    return readable_name(document.get("title") or "", document.get("source") or "", text, document.get("id") or "")


def clean(text: str) -> str:
    """Return the text as one line without control and direction characters, white space collapsed.

    Line breaks would let a document add its own prompt lines ("Question: ..."), and direction overrides would let it
    hide text from a reader. Letters of right-to-left scripts are kept, and so are invisible characters that are part of
    a word or an emoji (see `rag_backbone.text.scripts.visible`).
    """
    return re.sub(r" {2,}", " ", visible(re.sub(r"\s", " ", clean_text(text, "evidence")))).strip()


def distinct(passages: Iterable[Passage]) -> list[Passage]:
    """Return the passages in order, deduplicated by id and by text."""
    ids: set[str] = set()
    texts: set[str] = set()
    kept = []
    for p in passages:
        if p["id"] not in ids and p["text"] not in texts:
            ids.add(p["id"])
            texts.add(p["text"])
            kept.append(p)
    return kept


def interleaved(rankings: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """Return the best `k` passages of several rankings, taken in turns (as FLARE does with its several queries)."""
    depth = max((len(r) for r in rankings), default=0)
    return distinct(r[i] for i in range(depth) for r in rankings if i < len(r))[:k]


def within_budget(passages: Sequence[Passage], budget: int, count: CountTokens) -> tuple[list[Passage], list[str]]:
    """Return the passages that fit into `budget` tokens, in order. The first one that does not fit is truncated.

    Returns:
        The passages, and the ids of those that were truncated or left out.
    """
    kept: list[Passage] = []
    affected: list[str] = []
    left = budget
    for p in passages:
        size = count(render([p]))
        if size <= left:
            kept.append(p)
            left -= size
            continue
        affected.append(p["id"])
        shortened = _shortened(p, left, count)
        if shortened is not None:
            kept.append(shortened)
        left = 0
    return kept, affected


def render(passages: Sequence[Passage]) -> str:
    """Return the passages as numbered lines: `[1] Title: text`."""
    return "\n".join(f"[{number}] {titled(p)}" for number, p in enumerate(passages, 1))


def titled(p: Passage) -> str:
    """Return a passage's text after its title, unless it begins with it."""
    return f"{p['title']}: {p['text']}" if p["title"] and not p["text"].startswith(p["title"]) else p["text"]


def _shortened(p: Passage, budget: int, count: CountTokens) -> Passage | None:
    """Return the passage with as many leading words as fit; None if fewer than 16 do, which would be a fragment."""
    words = p["text"].split(" ")
    low, high = 0, len(words)
    while low < high:  # the largest number of words that fits
        middle = (low + high + 1) // 2
        if count(render([Passage(**{**p, "text": " ".join(words[:middle]) + " ..."})])) <= budget:
            low = middle
        else:
            high = middle - 1
    return Passage(**{**p, "text": " ".join(words[:low]) + " ..."}) if low >= 16 else None


def _title(metadata: Mapping[str, Any]) -> str:
    title = title_of(metadata)
    page = "" if metadata.get("title") else page_of(metadata)
    return f"{title}, page {page}" if title and page else title
