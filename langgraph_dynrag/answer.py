"""The short answer inside a reasoned one, and when such an answer is complete.

An answer stands behind a phrase (`So the answer is`), to the end of its sentence; or between the phrase and an end mark
(`<answer>` and `</answer>`). If the end mark is a brace, it is the one that closes none of the answer's own.
"""

from __future__ import annotations

import re

from rag_backbone.text_units import first_sentence_end, sentences

_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}


def answer_start(text: str, phrase: str) -> int | None:
    """Where the answer begins after the last `phrase` (case ignored), or None."""
    at = text.lower().rfind(phrase.lower())
    return None if at < 0 else at + len(phrase)


def is_complete(text: str, phrase: str, end: str | None = None) -> bool:
    """Whether the sentence of the (first) `phrase` has ended for certain, or the end mark was written."""
    at = text.lower().find(phrase.lower())
    if at < 0:
        return False
    rest = text[at + len(phrase) :]
    if end is not None:
        return _marked_end(rest, end) is not None
    if not rest.strip():
        return False
    return first_sentence_end(text[at:]) is not None


def through_answer(text: str, phrase: str, end: str | None = None) -> str:
    """The text up to the end of the sentence that holds the first `phrase`, or through the end mark behind it.

    All of it if there is none.
    """
    at = text.lower().find(phrase.lower())
    if at < 0:
        return text
    if end is not None:
        start = at + len(phrase)
        length = _marked_end(text[start:], end)
        return text if length is None else text[: start + length + len(end)]
    spans = sentences(text[at:])
    return text[: at + spans[0].end].rstrip() if spans else text


def short_answer(text: str, phrase: str | None, end: str | None = None) -> str:
    """What follows `phrase`, to the end of its sentence, without its full stop, quotes and emphasis.

    With an end mark, what stands before it; the first line if it was never written. Without a phrase, or in a text that
    lacks it, the whole text, stripped.
    """
    start = None if phrase is None else answer_start(text, phrase)
    if start is None:
        return text.strip()
    if end is not None:
        rest = text[start:].lstrip()
        length = _marked_end(rest, end)
        return _bare(rest[:length] if length is not None else rest.partition("\n")[0])
    rest = text[start:].lstrip(" :,").lstrip()
    spans = sentences(rest)
    first = rest[spans[0].start : spans[0].end] if spans else rest
    return _bare(first)


def _marked_end(text: str, end: str) -> int | None:
    """Where the end mark begins; of a closing brace the one that closes no brace of the text."""
    if end != "}":
        at = text.lower().find(end.lower())
        return None if at < 0 else at
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return i
    return None


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
