"""The short answer within a reasoned one, and when it is complete.

The short answer follows a phrase (`So the answer is`), up to the end of its sentence, or stands between the phrase and
an end mark (`<answer>` and `</answer>`). If the end mark is a closing brace, it is the first one that does not close a
brace within the answer.
"""

from __future__ import annotations

import re
from functools import cache

from rag_backbone.text.units import first_sentence_end, sentences

_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}


def find_phrase(text: str, phrase: str) -> re.Match[str] | None:
    """Find the first `phrase` in a text. Case is ignored, and any white space matches any other."""
    return _pattern(phrase).search(text)


def last_phrase(text: str, phrase: str) -> re.Match[str] | None:
    """Find the last `phrase` in a text. Matches like `find_phrase`."""
    found = None
    for found in _pattern(phrase).finditer(text):  # noqa: B007 - the last one is asked for
        pass
    return found


def answer_start(text: str, phrase: str) -> int | None:
    """Return where the answer begins after the last `phrase`; None if the phrase is missing."""
    found = last_phrase(text, phrase)
    return None if found is None else found.end()


def is_blank(answer: str, end: str | None = None) -> bool:
    """Return whether the text after a phrase is no answer: only the end mark, or punctuation that ends a sentence."""
    rest = answer if end is None else answer.replace(end, "")
    return not rest.strip(" \t\r\n.:,;*\u3002\u0964")


def closing_lead(text: str, phrase: str) -> str:
    """Return what to append to a text, cut off anywhere, so that it ends with `phrase` on a sentence boundary.

    Args:
        text: The text, without trailing white space.
        phrase: The answer phrase.

    Returns:
        The rest of the phrase if the text ends with the beginning of it, and nothing if it ends with all of it.
        Otherwise the phrase: on the same line if the text ends with a complete sentence, on a new line if not.
    """
    if not text.strip():
        return phrase
    begun = _begun(text, phrase)
    if begun is not None:
        return phrase[begun:]
    return f" {phrase}" if ends_sentence(text) else f"\n{phrase}"


def is_complete(text: str, phrase: str, end: str | None = None) -> bool:
    """Return whether the sentence of the first `phrase` has certainly ended, or the end mark was written."""
    found = find_phrase(text, phrase)
    if found is None:
        return False
    rest = text[found.end() :]
    if end is not None:
        return _marked_end(rest, end) is not None
    if not rest.strip():
        return False
    return first_sentence_end(text[found.start() :]) is not None


def through_answer(text: str, phrase: str, end: str | None = None) -> str:
    """Return the text up to the end of the sentence with the first `phrase`, or through the end mark after it.

    Returns the whole text if there is no such phrase or end mark.
    """
    found = find_phrase(text, phrase)
    if found is None:
        return text
    at, start = found.span()
    if end is not None:
        length = _marked_end(text[start:], end)
        return text if length is None else text[: start + length + len(end)]
    spans = sentences(text[at:])
    return text[: at + spans[0].end].rstrip() if spans else text


def short_answer(text: str, phrase: str | None, end: str | None = None) -> str:
    """Return the text after `phrase` up to the end of its sentence, without its full stop, quotes and emphasis.

    With an end mark, return the text before it, or the first line if it is missing. Without a phrase, or if the text
    lacks it, return the whole text, stripped.
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


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    # Not str.lower, which changes the length of some texts and thereby shifts positions.
    return re.compile(r"\s+".join(map(re.escape, phrase.split())), re.IGNORECASE)


def _begun(text: str, phrase: str) -> int | None:
    """Return how many characters of the phrase the text ends with; None if it ends with something else.

    The beginning of a phrase of words only counts at the start of a sentence, because a sentence may end with any of
    its words. The whole phrase, and the beginning of a mark such as `<answer>`, count anywhere.
    """
    for length in range(len(phrase.rstrip()), 0, -1):
        if phrase[length - 1].isspace():
            continue
        found = re.search(_pattern(phrase[:length]).pattern + r"\Z", text, re.IGNORECASE)
        if found is None:
            continue
        before = text[: found.start()].rstrip(_OPENING)
        whole = length == len(phrase.rstrip())
        if whole or not phrase[0].isalnum() or not before.strip() or ends_sentence(before):
            return length
    return None


_OPENING = "*_\"'\u201c\u2018("
_CLOSING = "*_\"'\u201d\u2019"


def ends_sentence(text: str) -> bool:
    """Return whether a text ends with a complete sentence or line, so that a new one can follow."""
    if text.rstrip(" \t")[-1:] in ("\n", "\r"):
        return True
    whole = text.rstrip().rstrip(_CLOSING)
    return any(span.start >= len(whole) for span in sentences(f"{whole} Thus it is."))


def _marked_end(text: str, end: str) -> int | None:
    """Return where the end mark begins. For a closing brace, braces within the text are matched first."""
    if end != "}":
        found = find_phrase(text, end)
        return None if found is None else found.start()
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return i
    return None


def _bare(answer: str) -> str:
    answer = _unquoted(answer)
    # Remove the full stop that ends the sentence, but not one that belongs to an abbreviation (D.C., Jr.).
    if answer.endswith(".") and not re.search(r"(?:\b\w\.\w|\b(?:Jr|Sr|Inc|Ltd|Co|Corp|St|vs))\.$", answer):
        answer = answer[:-1]
    return _unquoted(answer)


def _unquoted(text: str) -> str:
    """Return the text without a pair of quotes, or emphasis, around the whole."""
    text = text.strip().strip("*").strip()
    while len(text) > 1 and text[0] in _PAIRS and text[-1] == _PAIRS[text[0]] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
