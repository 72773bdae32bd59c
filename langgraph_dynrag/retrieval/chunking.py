"""Split a text into chunks at paragraphs, lines, sentences, clauses, spaces or words; never inside a character.

Uses LangChain's recursive splitter with additional separators for non-Latin scripts, whose sentences it would split
anywhere. English is split exactly as by LangChain.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cache

import regex
from langchain_text_splitters import RecursiveCharacterTextSplitter

from rag_backbone.text.units import spaced_pieces

CHUNKING_VERSION = 2
"""Incremented whenever splitting or normalisation changes, so that indexes are rebuilt."""

# Longest grapheme cluster in code points. No script has longer ones; noise that has must not make a chunk too long.
_LONGEST_CLUSTER = 64
_CLUSTER = regex.compile(r"\X")


def split_text(text: str, characters: int, overlap: int) -> list[str]:
    """Return chunks of at most `characters` code points; together they contain the whole text except white space.

    A grapheme cluster (such as an emoji of several people, or a syllable) stays whole even if it is longer.

    Args:
        text: Any text.
        characters: Maximum code points of a chunk.
        overlap: Maximum code points of a chunk that are repeated in the next one.
    """
    chunks: list[str] = []
    for piece in _splitter(characters, overlap, plain=text.isascii()).split_text(text):
        whole = piece.strip()
        chunks.extend([whole] if len(whole) <= characters else _cut(whole, characters, overlap))
    return [chunk for chunk in chunks if chunk]


def _splitter(characters: int, overlap: int, *, plain: bool) -> RecursiveCharacterTextSplitter:
    return RecursiveCharacterTextSplitter(
        ["\n\n", "\n", " "] if plain else _separators(),
        is_separator_regex=True,
        chunk_size=characters,
        chunk_overlap=overlap,
        keep_separator="end",
    )


@cache
def _separators() -> list[str]:
    # LangChain's splitter takes patterns of `re`, which has no class for code points that continue a character.
    planes = "".join(map(chr, [*range(0x300, 0x1F400), *range(0xE0020, 0xE01F0)]))
    continuing = "".join(regex.findall(r"[\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}]", planes))
    apart = f"(?![{continuing}])"
    closing = "[\"'”’»」』）》】)\\]]*"
    beyond_latin = "[\u0370-\u1dff\u1f00-\u1fff\u3040-\ud7ff\uf900-\ufdff\ufe70-\uffdc]"
    ends = "[。！？｡।॥؟۔።፧፨។៕။།༎։߹᠃᠉᭞᭟꧈꧉܀܁܂]+"
    return [
        "\n\n|\u2029",
        "[\n\u2028\x85]",
        rf"(?:{ends}{closing}\s*|(?<={beyond_latin})[.!?．]+{closing}\s+|．(?!\d)){apart}",
        rf"[，、；：،؛፣፤၊༔]\s*{apart}",
        f"[ \u3000\u200b]{apart}",
    ]


def _cut(piece: str, characters: int, overlap: int) -> list[str]:
    """Split text that contains no separator: between words if the script has no spaces, else between clusters."""
    clusters = [0]
    for match in _CLUSTER.finditer(piece):
        clusters += [*range(match.start() + _LONGEST_CLUSTER, match.end(), _LONGEST_CLUSTER), match.end()]
    words = {*(span.start for span in spaced_pieces(piece)), len(piece)}
    preferred = [at for at in clusters if at in words]
    chunks: list[str] = []
    start = end = 0
    while end < len(piece):
        end = (
            _last(preferred, start, start + characters)
            or _last(clusters, start, start + characters)
            or clusters[bisect_right(clusters, start)]
        )
        chunks.append(piece[start:end].strip())
        # The overlap consists of whole words if any are short enough, else of whole clusters.
        start = clusters[bisect_left(clusters, max(end - overlap, start + 1))]
        start = preferred[bisect_left(preferred, start)] if preferred[bisect_left(preferred, start)] < end else start
    return chunks


def _last(of: list[int], after: int, until: int) -> int | None:
    i = bisect_right(of, until)
    return of[i - 1] if i and of[i - 1] > after else None
