"""Units of a text with their character offsets: sentences, words and content words; and tokens mapped to words.

Sentences come from `sentencex`, stop words from the lists that ship with `bm25s`. Sub-word pieces are mapped to words
by overlapping offsets, never by marker characters, so any tokenizer works. In scripts without spaces, words are
separated with ICU's dictionaries. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import regex

from rag_backbone.errors import ConfigurationError
from rag_backbone.text.scripts import SPACED, SPACELESS, search_terms, spaceless_words


class Span(NamedTuple):
    """Characters from `start` up to `end` (exclusive)."""

    start: int
    end: int


# Letters and digits, with the marks that occur inside words: O'Brien, mother-in-law, 3.14, 1,000, U.S.
_WORD = regex.compile(rf"(?P<spaceless>{SPACELESS})|{SPACED}(?:['\u2019.,\-]{SPACED})*")
_SPACELESS = regex.compile(SPACELESS)
_LINE_END = regex.compile(r"\n\s*")
_CLOSING = r"[\p{Pe}\p{Pf}\"']*\s*"
# The splitter knows the sentence ends of most scripts, but not those of Khmer and Tibetan.
_FURTHER_END = regex.compile(rf"[\u17d4\u17d5\u0f0d\u0f0e]+{_CLOSING}")
# Marks that are never part of an abbreviation end a sentence for certain: the ideographic full stop, the danda, ...
_CERTAIN_END = regex.compile(rf"(?:(?![!?])\p{{SB=STerm}}|[\u0f0d\u0f0e]){_CLOSING}\Z")
_BRACKETS = ("()", "“”", "（）", "「」", "『』", "《》", "【】", "«»")
_STOP_LISTS = {
    "da": "DANISH",
    "de": "GERMAN",
    "en": "EN_PLUS",
    "es": "SPANISH",
    "fr": "FRENCH",
    "it": "ITALIAN",
    "ko": "KOREAN",
    "nl": "DUTCH",
    "no": "NORWEGIAN",
    "pt": "PORTUGUESE",
    "ru": "RUSSIAN",
    "sv": "SWEDISH",
    "tr": "TURKISH",
    "zh": "CHINESE",
}

_HALF = re.compile("[\ud800-\udfff]")
_PATIENCE = 12  # words

WordFilter = Callable[[Sequence[str]], Sequence[bool]]
"""Returns for each word of a text whether it carries content: a stop-word list, or a user's part-of-speech tagger."""


def sentences(text: str, language: str = "en") -> list[Span]:
    """Return the sentences, each with the white space that follows it; together they cover the text.

    A line break also ends a sentence. White space alone belongs to the sentence before it, or to the first one.
    """
    from sentencex import segment

    spans: list[Span] = []
    start = 0
    # The library does not accept half of a surrogate pair, which some JSON contains.
    for piece in segment(language, _HALF.sub("\ufffd", text)):
        # Compute offsets from the pieces, which add up to the text; the library's own offsets are not reliable.
        end = start + len(piece)
        for line in _lines(text, start, end):
            if spans and not (text[line.start : line.end].strip() and text[spans[-1].start : line.start].strip()):
                spans[-1] = Span(spans[-1].start, line.end)
            else:
                spans.append(line)
        start = end
    if start < len(text):
        spans.append(Span(start, len(text)))
    return spans


def first_sentence_end(text: str) -> int | None:
    """Return where the first sentence of a growing text ends for certain, or None while that is open.

    The end is certain if a line break follows, or a whole word and something after it, because an abbreviation can only
    be told from what follows (`D.C. and`, `J. R. R.`). After a mark that no abbreviation contains, such as the
    ideographic full stop, any text may follow. Inside an open bracket or quotation, which the splitter keeps together
    once it closes, enough words must follow to make a closing mark unlikely.
    """
    spans = sentences(text)
    if not spans or not text.strip():
        return None
    end = spans[0].end
    if "\n" in text[text.find(text.strip()[0]) : end]:
        return end
    is_open = _is_open(text[:end])
    if not is_open and _CERTAIN_END.search(text, 0, end):
        return end if end < len(text) else None
    following = sum(1 for word in words(text[end:]) if end + word.end < len(text))
    return end if following >= (_PATIENCE if is_open else 1) else None


def words(text: str) -> list[Span]:
    """Return the words, without the punctuation around them. A letter's marks belong to its word."""
    spans: list[Span] = []
    for match in _WORD.finditer(text):
        start = match.start()
        ends = [match.end()] if match["spaceless"] is None else [start + e for e in spaceless_words(match[0])]
        spans += [Span(a, b) for a, b in pairwise([start, *ends])]
    return spans


def spaced_pieces(text: str) -> list[Span]:
    """Return the pieces between white space, including punctuation.

    In scripts without spaces, the pieces are words together with what follows them.
    """
    spans: list[Span] = []
    for piece in re.finditer(r"\S+", text):
        starts = {piece.start()}
        for run in _SPACELESS.finditer(text, *piece.span()):
            *inner, last = (run.start() + end for end in (0, *spaceless_words(run[0])))
            starts.update(inner, [last] if _WORD.match(text, last) else [])
        spans += [Span(a, b) for a, b in pairwise([*sorted(starts), piece.end()])]
    return spans


def stop_words(language: str = "en") -> frozenset[str]:
    """Return the function words of a language, in lower case.

    Raises:
        ConfigurationError: If there is no list for the language.
    """
    if language not in _STOP_LISTS:
        raise ConfigurationError(f"no stop words for language {language!r}; known: {', '.join(sorted(_STOP_LISTS))}")
    return _listed_words(_STOP_LISTS[language])


@cache
def _listed_words(name: str) -> frozenset[str]:
    from rag_backbone.logger_levels import level_kept

    with level_kept("bm25s"):
        import bm25s.stopwords

    return frozenset(getattr(bm25s.stopwords, f"STOPWORDS_{name}"))


def search_words(text: str, *, indexing: bool) -> list[str]:
    """Return the terms that BM25 compares: `search_terms` without English function words.

    One letter and one digit are words too: "Vitamin C", "World War 2".
    """
    listed = _listed_words("EN")  # the short list: saved indexes were made with it
    return [term for term in search_terms(text, indexing=indexing) if term not in listed]


def not_a_stop_word(language: str = "en") -> WordFilter:
    """Return the default word filter: a word carries content if it is not in the language's stop-word list."""
    listed = stop_words(language)

    def carries_content(of: Sequence[str]) -> list[bool]:
        return [word.lower().replace("\u2019", "'") not in listed for word in of]

    return carries_content


def content_words(text: str, carries_content: WordFilter | None = None) -> list[Span]:
    """Return the words that carry content, in order."""
    spans = words(text)
    kept = (carries_content or not_a_stop_word())([text[s.start : s.end] for s in spans])
    return [span for span, keep in zip(spans, kept, strict=True) if keep]


def token_spans(pieces: Sequence[str]) -> list[Span]:
    """Return the offsets of tokens, given the characters that each one completes.

    A token that only begins a multi-byte character is an empty span at the position of that character.
    """
    spans = []
    start = 0
    for piece in pieces:
        spans.append(Span(start, start + len(piece)))
        start += len(piece)
    return spans


def words_of_tokens(tokens: Sequence[Span], of: Sequence[Span]) -> list[int | None]:
    """Return for each token the index of the word that it belongs to: the first one it overlaps.

    An empty token belongs to the word of the next character; punctuation and white space belong to no word. Both
    sequences must be in text order.
    """
    found: list[int | None] = []
    w = 0
    for token in tokens:
        while w < len(of) and of[w].end <= token.start:
            w += 1
        end = max(token.end, token.start + 1)
        found.append(w if w < len(of) and of[w].start < end else None)
    return found


def tokens_of_word(word: int, tokens: Sequence[Span], of: Sequence[Span]) -> list[int]:
    """Return the tokens that contain part of a word, including tokens shared with the word before.

    Args:
        word: The word's index in `of`.
        tokens: In text order, as in `words_of_tokens`.
        of: All words of the text.
    """
    start, end = of[word]
    return [
        t
        for t, (token, w) in enumerate(zip(tokens, words_of_tokens(tokens, of), strict=True))
        if w == word or (token.start < end and token.end > start)
    ]


def _is_open(text: str) -> bool:
    return text.count('"') % 2 == 1 or any(text.count(pair[0]) > text.count(pair[1]) for pair in _BRACKETS)


def _lines(text: str, start: int, end: int) -> list[Span]:
    """Split a span after each line break, and after each sentence end that the splitter does not know."""
    cuts = sorted({m.end() for p in (_LINE_END, _FURTHER_END) for m in p.finditer(text, start, end)})
    edges = [start, *(c for c in cuts if c < end), end]
    return [Span(a, b) for a, b in pairwise(edges) if b > a]
