"""Questions about every phrase of a passage, without a model.

    sentence -> phrases (between function words) -> "In what year she founded the school of Lusk?"

A small generator asks about few of a passage's facts, and an adapter hardly answers what it was not asked about. So
each phrase is asked about in place (echo questions): in the whole sentence, in its surroundings, and among a random
subset of the words. The questions are not elegant, but nothing is left out, the answer is known, and they cost nothing.
The same passage and seed always give the same questions. Knows no models.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from llamaindex_prag.augment.augmentation import QA
from rag_backbone.text.units import sentences, stop_words

_WORD = re.compile(r"\d[\d.,]*\d|\w+(?:[-'’]\w+)*|[^\w\s]")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_PRONOUN = re.compile(r"(?:(?P<whose>His|Its|Their)|He|She|It|They)\b")
_BEFORE, _AFTER = 7, 6  # number of surrounding words
_KEPT = 0.6  # share of words kept when some are left out
MAX_WORDS = 6
"""Maximum number of words of a phrase that is asked about."""


@dataclass(frozen=True, slots=True)
class _Gap:
    before: list[str]
    phrase: str
    after: list[str]

    @property
    def asked(self) -> str:
        if _YEAR.fullmatch(self.phrase):
            return "which year"
        return "how many" if self.phrase[0].isdigit() else "what"


def phrase_questions(text: str, n: int, *, title: str = "", seed: int = 0) -> list[QA]:
    """Return at most `n` questions, spread evenly over the passage's phrases.

    Args:
        text: The passage.
        n: Number of questions; fewer if the passage is short.
        title: The passage's title, put before a question that does not name it.
        seed: Selects which words are left out.
    """
    rng = random.Random(f"{seed}/{title}/{text}".encode("utf-8", "surrogatepass"))  # noqa: S311
    gaps = [gap for s in sentences(text) for gap in _gaps(text[s.start : s.end], title)]
    found: dict[str, QA] = {}
    for form in (_surroundings, _thinned, _whole, _keywords):
        for gap in rng.sample(gaps, len(gaps)):
            question = form(gap, title, rng)
            found.setdefault(question, QA(question, gap.phrase, style="phrase", source="cloze"))
    return list(found.values())[: max(n, 0)]


def _gaps(sentence: str, title: str) -> Iterator[_Gap]:
    """Yield every phrase of a sentence, with the words around it."""
    said = _named(" ".join(sentence.split()), title).rstrip(".!? ")
    listed = stop_words()
    start = end = -1
    for match in [*_WORD.finditer(said), None]:
        word = match[0] if match else ""
        # A capitalised word inside a sentence is part of a name, whatever the word ("The Hague", "Of Mice and Men").
        breaks = not word or not word[0].isalnum() or (word.lower() in listed and not (word[0].isupper() and end > 0))
        if match and not breaks:
            start, end = (match.start() if start < 0 else start), match.end()
        elif start >= 0:
            phrase = said[start:end]
            if len(phrase) > 1 and phrase != title and len(phrase.split()) <= MAX_WORDS:
                yield _Gap(said[:start].split(), phrase, said[end:].split())
            start = -1


def _named(sentence: str, title: str) -> str:
    """Replace a pronoun at the beginning of a sentence by the title."""
    found = _PRONOUN.match(sentence) if title else None
    return sentence if found is None else title + ("'s" if found["whose"] else "") + sentence[found.end() :]


def _whole(gap: _Gap, title: str, rng: random.Random) -> str:
    del rng
    return _under(title, [*gap.before, gap.asked, *gap.after])


def _surroundings(gap: _Gap, title: str, rng: random.Random) -> str:
    del rng
    return _under(title, [*gap.before[-_BEFORE:], gap.asked, *gap.after[:_AFTER]])


def _thinned(gap: _Gap, title: str, rng: random.Random) -> str:
    before, after = ([w for w in words if rng.random() < _KEPT] for words in (gap.before, gap.after))
    return _under(title, [*before, gap.asked, *after])


def _keywords(gap: _Gap, title: str, rng: random.Random) -> str:
    kept = [w for w in (*gap.before, *gap.after) if w[0].isalnum() and rng.random() < _KEPT]
    asked = gap.asked[0].upper() + gap.asked[1:]
    return f"{asked}: {', '.join([title] if title else [])}{', ' if title and kept else ''}{' '.join(kept)}?"


def _under(title: str, words: list[str]) -> str:
    asked = re.sub(r"\s+([,;:.)\]])", r"\1", " ".join(words)).rstrip(",;: ") + "?"
    return asked if not title or title.casefold() in asked.casefold() else f"{title}: {asked}"
