"""Retrieved documents as passages: cleaned, told apart, cut to a budget, numbered, and written into a prompt.

A passage is plain data, fit for any checkpointer. Documents come from outside, so their text is kept from posing as
part of the prompt: it is one line, without control characters.
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

# A passage is cut to this before it is looked at any closer: documents may be megabytes long.
_MAX_CHARACTERS = 20_000
_ORIGINAL = "original_sha256"
LEFT_OUT = "metadata_left_out"


class Passage(TypedDict):
    """One retrieved text."""

    id: str
    """Stable for the same text and source, whatever retriever it came from."""
    text: str
    title: str
    source: str
    """Where it comes from, as far as the retriever says."""
    score: float | None
    metadata: dict[str, Any]
    """What the retriever said of it as plain data; `metadata_left_out` lists what has no such form."""


class Source(TypedDict):
    """A numbered passage, as returned with an answer."""

    number: int
    id: str
    text: str
    title: str
    source: str
    score: float | None
    query: str
    """The query that found it."""


def passage(text: str, metadata: dict[str, Any], document_id: str | None) -> Passage | None:
    """A cleaned passage; None if no text is left."""
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
    """SHA-256 of the text as it came in, without blanks around it; None if `p["text"]` is that text."""
    found = p["metadata"].get(_ORIGINAL)
    return found if isinstance(found, str) else None


def name_of(document: Mapping[str, Any]) -> str:
    """Return what a person recognises a passage or source by: its title, source or first words rather than its id."""
    text = document.get("text") or ""
    return readable_name(document.get("title") or "", document.get("source") or "", text, document.get("id") or "")


def clean(text: str) -> str:
    """Return one line of text, without control and direction characters, white space collapsed.

    Line breaks would let a document write prompt lines of its own ("Question: ..."), and direction overrides would let
    it hide text from a reader. Letters of right-to-left scripts are left as they are, and so is what is invisible by
    itself but part of a word or an emoji (`rag_backbone.text.scripts.visible`).
    """
    return re.sub(r" {2,}", " ", visible(re.sub(r"\s", " ", clean_text(text, "evidence")))).strip()


def distinct(passages: Iterable[Passage]) -> list[Passage]:
    """Without repetitions of an id or a text, in order."""
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
    """The best `k` of several rankings, taken in turns (as FLARE does with its several queries)."""
    depth = max((len(r) for r in rankings), default=0)
    return distinct(r[i] for i in range(depth) for r in rankings if i < len(r))[:k]


def within_budget(passages: Sequence[Passage], budget: int, count: CountTokens) -> tuple[list[Passage], list[str]]:
    """The passages that fit into `budget` tokens, in order; the last one that begins to fit is shortened.

    Returns:
        The passages, and the ids of those that were shortened or left out.
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
    """Numbered lines: `[1] Title: text`."""
    lines = []
    for number, p in enumerate(passages, 1):
        head = f"{p['title']}: " if p["title"] and not p["text"].startswith(p["title"]) else ""
        lines.append(f"[{number}] {head}{p['text']}")
    return "\n".join(lines)


def _shortened(p: Passage, budget: int, count: CountTokens) -> Passage | None:
    """As many leading words as fit; None if not even sixteen do, which would be a fragment."""
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
