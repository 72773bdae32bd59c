"""Detect where a reply repeats the answer that it should continue.

Many hosted models start the answer over when they are asked to continue it. Texts are compared by their letters and
digits only, so whitespace, case, punctuation, quotation marks and emphasis make no difference. Pure.

The following count as repetitions, always at the beginning of a reply:

    restart           a sentence of the written text and all that follows it there: the whole text, or its end
    overlap           the last words of an unfinished sentence, at least three
    first sentences   the first sentences of the written text: all of them or at least two, ignoring function words
    lead-in           "Sure! Continuing:" and the like, before one of the above or before the continuation itself

Text shorter than three words or twelve letters counts only as a whole sentence. A name, the next item of a list, or a
refrain is therefore left alone unless the written text ends with it.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from langgraph_dynrag.short_answer import ends_sentence, find_phrase
from rag_backbone.text.units import not_a_stop_word, sentences, words

_LONG = 12
_OVERLAP = 8
_NEGATIONS = ("not", "no", "never", "nor", "neither", "without")
_LEAD_IN = re.compile(
    r"[\s\"'*_#>\u201c]*("
    r"sure|certainly|of course|absolutely|ok(ay)?|alright|got it|understood|here|continu\w*|the continu\w*"
    r"|gerne|nat\u00fcrlich|klar|hier|fortsetzung"  # German
    r"|bien s\u00fbr|d'accord|voici|suite|claro|por supuesto|aqu\u00ed|certo|ecco"  # French, Spanish, Italian
    r"|\u043a\u043e\u043d\u0435\u0447\u043d\u043e|\u0445\u043e\u0440\u043e\u0448\u043e|\u0432\u043e\u0442"  # Russian
    r"|\u597d\u7684|\u5f53\u7136|\u4ee5\u4e0b|\u306f\u3044|\u627f\u77e5|\ub124)",  # Chinese, Japanese, Korean
    re.IGNORECASE,
)
"""Phrases with which models address the person who asked them to continue."""
_OF_CONTINUING = re.compile(
    r"continu|go(ing)? on|resum|pick(ing)? up|fortsetz|weiter|suite|poursui|seguir|prosegu"
    r"|\u043f\u0440\u043e\u0434\u043e\u043b\u0436|\u7ee7\u7eed|\u7e8c|\u7eed|\u7d9a|\uacc4\uc18d",
    re.IGNORECASE,
)
_LEAD_IN_CHARACTERS = 160


class Letters(NamedTuple):
    """Case-folded letters, digits and combining marks of a text, with the index of the character each comes from."""

    text: str
    at: tuple[int, ...]


@lru_cache(256)
def letters(text: str) -> Letters:
    """Return the letters of a text."""
    found: list[str] = []
    at: list[int] = []
    for i, character in enumerate(text):
        for c in unicodedata.normalize("NFKD", character).casefold():
            if unicodedata.category(c)[0] in "LNM":
                found.append(c)
                at.append(i)
    return Letters("".join(found), tuple(at))


def repeated_characters(
    written: str, reply: str, *, over: bool, cut_off: bool = False, continues: bool = False, phrase: str | None = None
) -> int | None:
    """Return how many characters at the beginning of a reply repeat the text written before it.

    Args:
        written: The answer so far.
        reply: The reply so far.
        over: Whether the reply has ended.
        cut_off: Whether it ended because of a limit.
        continues: Whether the model continues its own text instead of answering a request to continue it. In that case
            only a repetition of the whole written text counts, and only if that has two or more sentences.
        phrase: The answer phrase; if the written text ends with it, the reply may begin with it as well.

    Returns:
        The number of characters, or None while more of the reply is needed to tell.
    """
    if not letters(written).text:
        return 0
    asked = None if phrase is None else _short_answer_begun(written, phrase)
    if asked is not None and not continues:
        if not over:
            return None
        assert phrase is not None
        if (found := find_phrase(reply, phrase)) is not None and letters(reply[found.end() :]).text:
            return found.end() + _begun(asked, reply[found.end() :])
        if letters(asked).text and (same := _begun(asked, reply)):
            return same
    best = _repeated(written, reply, over=over, cut_off=cut_off, continues=continues, asked=asked is not None)
    if best or continues:
        return best
    lead = _lead_in(written, reply, over=over, cut_off=cut_off)
    return None if lead is None or best is None else lead


def _short_answer_begun(written: str, phrase: str) -> str | None:
    """Return the text after the last answer phrase if its sentence is unfinished; None if there is no such phrase."""
    end = None
    while (found := find_phrase(written[end or 0 :], phrase)) is not None:
        end = (end or 0) + found.end()
    if end is None or (letters(written[end:]).text and ends_sentence(written)):
        return None
    return written[end:]


def _begun(asked: str, reply: str) -> int:
    """Return how many characters of the reply repeat the beginning of a short answer."""
    begun, said = letters(asked), letters(reply)
    if not begun.text or not said.text.startswith(begun.text):
        return 0
    return said.at[len(begun.text) - 1] + 1


def _repeated(written: str, reply: str, *, over: bool, cut_off: bool, continues: bool, asked: bool) -> int | None:
    known, said = letters(written), letters(reply)
    if not said.text:
        return 0 if over else None
    finished = ends_sentence(written)
    waiting = False
    starts = list(_starts(written, finished))
    if continues:
        starts = starts[:1] if len(starts) > 1 else []
    for start, of_sentence in starts:
        first = next((i for i, at in enumerate(known.at) if at >= start), len(known.at))
        tail = known.text[first:]
        if not tail:
            continue
        if said.text.startswith(tail):
            end = said.at[len(tail) - 1] + 1
            counts = _counts(written[start:], reply, end, finished, of_sentence, over=over)
            if counts:  # the written text already has the punctuation that ends the sentence
                return end + len(_punctuation(reply[end:]).rstrip()) if finished else end
            waiting |= counts is None
        elif tail.startswith(said.text):
            if not over:
                waiting = True
            elif of_sentence and _all_of_it(written[start:], reply, cut_off=cut_off, asked=asked):
                return len(reply)
    if waiting:
        return None
    if continues:
        return 0
    return _first_sentences(written, reply, over=over)


def _starts(written: str, finished: bool) -> Iterator[tuple[int, bool]]:
    """Yield where a repetition may begin in the written text: at each sentence, and at each word of an unfinished one.

    Each position comes with whether it is the start of a sentence.
    """
    spans = sentences(written)
    for span in spans:
        yield span.start, True
    if not finished and spans:
        last = written[spans[-1].start :]
        for word in words(last)[1:]:
            yield spans[-1].start + word.start, False


def _counts(tail: str, reply: str, end: int, finished: bool, of_sentence: bool, *, over: bool) -> bool | None:
    """Return whether a reply that begins with the end of the written text repeats it; None if not known yet."""
    follows = reply[end : end + 1]
    if not follows and not over:
        return None
    long = _is_long(tail)
    inside = follows.isalnum()  # the reply continues inside a word
    if inside and not (long and not finished):
        return False
    if long:
        return True
    if not of_sentence:
        return len(words(tail)) >= 3 and len(letters(tail).text) >= _OVERLAP
    if finished:
        return of_sentence and (not reply[end:].strip() or ends_sentence(reply[:end] + _punctuation(reply[end:])))
    return of_sentence


def _all_of_it(tail: str, reply: str, *, cut_off: bool, asked: bool) -> bool:
    """Return whether a complete reply consists only of the beginning of `tail`."""
    if cut_off:
        return _is_long(reply)
    ends = letters(reply)
    same = letters(tail)
    end = same.at[len(ends.text) - 1] + 1
    whole = ends_sentence(tail[:end] + _punctuation(tail[end:]))
    # A short answer may coincide with the beginning of a sentence written earlier.
    return whole and (_is_long(reply) or not asked)


def _first_sentences(written: str, reply: str, *, over: bool) -> int | None:
    """Match the leading sentences of both texts, ignoring function words; a single match may be a refrain."""
    known = [written[s.start : s.end] for s in sentences(written)]
    spans = sentences(reply)
    complete = spans if over else spans[:-1]
    same = 0
    for sentence, span in zip(known, complete, strict=False):
        if not (key := _key(sentence)) or key != _key(reply[span.start : span.end]):
            break
        same += 1
    open_at = len(complete)
    if not over and same == open_at < len(known):
        begun, expected = letters(reply[spans[open_at].start :]).text, letters(known[open_at]).text
        shared = sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(begun, expected, strict=False))
        )
        if shared >= min(_LONG, len(begun)):
            return None
    whole = len(known) if ends_sentence(written) else len(known) - 1
    if not same or (same < 2 and same < whole) or not _is_long(reply[: complete[same - 1].end]):
        return 0
    return complete[same - 1].end


def _key(sentence: str) -> tuple[str, ...]:
    """Return the words that identify a sentence: content words and negations."""
    found = [letters(sentence[s.start : s.end]).text for s in words(sentence)]
    content = not_a_stop_word()(found)
    return tuple(w for w, keep in zip(found, content, strict=True) if keep or w in _NEGATIONS)


def _lead_in(written: str, reply: str, *, over: bool, cut_off: bool) -> int | None:
    """Return the length of a lead-in addressed to the user, with any repetition that follows it; None if undecided."""
    head = reply[:_LEAD_IN_CHARACTERS]
    if not over and len(reply.strip()) < 12:  # too short to tell anything before its first words are complete
        return None if _may_lead_in(reply) else 0
    if not _LEAD_IN.match(head):
        return 0
    if not over and len(reply) < _LEAD_IN_CHARACTERS:
        return None
    ends = [m.end() for m in re.finditer(r"[:!.\u3002\uff1a\uff01]\s*|\n\s*", head)]
    for end in ends:
        found = _repeated(written, reply[end:], over=over, cut_off=cut_off, continues=False, asked=False)
        if found is None:
            return None
        if found:
            return end + found
    for end in ends:
        told = head[:end].strip()
        if _OF_CONTINUING.search(told) and told[-1:] in ":\uff1a\u2026" and len(words(told)) <= 12:
            return end
    return 0


def _may_lead_in(reply: str) -> bool:
    return not reply.strip() or (
        reply.lstrip(" \n\t\"'*_#>\u201c")[:1].isalnum() and _LEAD_IN.match(reply + " ") is not None
    )


def _punctuation(rest: str) -> str:
    """Return the punctuation that a text begins with, including one whitespace character after it."""
    found = re.match(r"[^\w\s]*\s?", rest)
    return found[0] if found else ""


def _is_long(text: str) -> bool:
    """Return whether a text is too long for a chance repetition: three words and twelve letters, or four ideographs."""
    weight = sum(3 if _stands_for_a_syllable(c) else 1 for c in letters(text).text)
    unspaced = any(map(_stands_for_a_syllable, text))
    return weight >= _LONG and (len(words(text)) >= 3 or weight >= 3 * _LONG or unspaced)


def _stands_for_a_syllable(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af" or "\u0e00" <= character <= "\u0eff"
