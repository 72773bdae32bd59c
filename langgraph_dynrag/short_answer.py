"""The short answer inside a reasoned one, and when such an answer is complete.

An answer stands behind a phrase (`So the answer is`), to the end of its sentence; or between the phrase and an end mark
(`<answer>` and `</answer>`). If the end mark is a brace, it is the one that closes none of the answer's own.
"""

from __future__ import annotations

import re
from functools import cache

from rag_backbone.text.units import first_sentence_end, sentences

_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}


def find_phrase(text: str, phrase: str) -> re.Match[str] | None:
    """The first `phrase` in a text; case is ignored, and any white space stands for any other."""
    return _pattern(phrase).search(text)


def last_phrase(text: str, phrase: str) -> re.Match[str] | None:
    """The last `phrase` in a text, found in the same way."""
    found = None
    for found in _pattern(phrase).finditer(text):  # noqa: B007 - the last one is asked for
        pass
    return found


def answer_start(text: str, phrase: str) -> int | None:
    """Where the answer begins after the last `phrase`, or None."""
    found = last_phrase(text, phrase)
    return None if found is None else found.end()


def is_blank(answer: str, end: str | None = None) -> bool:
    """Whether what follows a phrase is no answer: nothing but punctuation that ends a sentence, or the end mark."""
    rest = answer if end is None else answer.replace(end, "")
    return not rest.strip(" \t\r\n.:,;*\u3002\u0964")


def closing_lead(text: str, phrase: str) -> str:
    """What has to follow a text that breaks off anywhere, so that it ends in `phrase` on a sentence boundary.

    Args:
        text: Without white space at its end.
        phrase: The answer phrase.

    Returns:
        The rest of the phrase if the text ends in the beginning of one, nothing if it ends in all of it; else the
        phrase, in the text's last line if that ends in a whole sentence, else in a line of its own.
    """
    if not text.strip():
        return phrase
    begun = _begun(text, phrase)
    if begun is not None:
        return phrase[begun:]
    return f" {phrase}" if ends_sentence(text) else f"\n{phrase}"


def is_complete(text: str, phrase: str, end: str | None = None) -> bool:
    """Whether the sentence of the (first) `phrase` has ended for certain, or the end mark was written."""
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
    """The text up to the end of the sentence that holds the first `phrase`, or through the end mark behind it.

    All of it if there is none.
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


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    # Not str.lower: it changes the length of some texts, and with it what positions mean.
    return re.compile(r"\s+".join(map(re.escape, phrase.split())), re.IGNORECASE)


def _begun(text: str, phrase: str) -> int | None:
    """How many characters of the phrase the text ends in; None if the text ends in something else.

    The beginning of a phrase of words counts only where a sentence begins, since a sentence may end in any of its
    words; the whole phrase, and the beginning of a mark such as `<answer>`, count anywhere.
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
    """Whether a text ends in a whole sentence or a line, so that what follows begins another one."""
    if text.rstrip(" \t")[-1:] in ("\n", "\r"):
        return True
    whole = text.rstrip().rstrip(_CLOSING)
    return any(span.start >= len(whole) for span in sentences(f"{whole} Thus it is."))


def _marked_end(text: str, end: str) -> int | None:
    """Where the end mark begins; of a closing brace the one that closes no brace of the text."""
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
