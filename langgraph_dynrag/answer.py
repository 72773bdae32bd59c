"""The short answer inside a reasoned one, and when such an answer is complete."""

from __future__ import annotations

import re

from rag_backbone.text_units import first_sentence_end, sentences

_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}


def answer_start(text: str, phrase: str) -> int | None:
    """Where the answer begins after the last `phrase` (case ignored), or None."""
    at = text.lower().rfind(phrase.lower())
    return None if at < 0 else at + len(phrase)


def is_complete(text: str, phrase: str) -> bool:
    """Whether the sentence of the (first) `phrase` has ended for certain."""
    at = text.lower().find(phrase.lower())
    if at < 0:
        return False
    rest = text[at + len(phrase) :]
    if not rest.strip():
        return False
    return first_sentence_end(text[at:]) is not None


def through_answer(text: str, phrase: str) -> str:
    """The text up to the end of the sentence that holds the first `phrase`; all of it if there is none."""
    at = text.lower().find(phrase.lower())
    if at < 0:
        return text
    spans = sentences(text[at:])
    return text[: at + spans[0].end].rstrip() if spans else text


def short_answer(text: str, phrase: str | None) -> str:
    """What follows `phrase`, to the end of its sentence, without its full stop, quotes and emphasis.

    Without a phrase, or in a text that lacks it, the whole text, stripped.
    """
    start = None if phrase is None else answer_start(text, phrase)
    if start is None:
        return text.strip()
    rest = text[start:].lstrip(" :,").lstrip()
    spans = sentences(rest)
    first = rest[spans[0].start : spans[0].end] if spans else rest
    return _bare(first)


def _bare(answer: str) -> str:
    answer = _unquoted(answer)
    # The full stop that ends the sentence goes; one that belongs to an abbreviation (D.C., Jr.) stays.
    if answer.endswith(".") and not re.search(r"(?:\b\w\.\w|\b(?:Jr|Sr|Inc|Ltd|Co|Corp|St|vs))\.$", answer):
        answer = answer[:-1]
    return _unquoted(answer)


def _unquoted(text: str) -> str:
    """Without a pair of quotes, or emphasis, around the whole."""
    text = text.strip().strip("*").strip()
    while len(text) > 1 and text[0] in _PAIRS and text[-1] == _PAIRS[text[0]] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
