"""Part-of-speech tagging of English sentences.

The tags are the Penn Treebank's, from the lexicon that ships with `textblob` (nothing is downloaded), and corrected
where a word's neighbours contradict them: "the register" is a noun, "she founded the school" a past tense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

_WORD = re.compile(r"\d[\d.,]*\d|['’]s\b|(?<=s)['’](?=\s\w)|\w+(?:[-.’']\w+)*?(?=['’]s\b)|\w+(?:[-’']\w+)*|[^\w\s]")
AUXILIARIES = frozenset(
    {
        "am",
        "is",
        "are",
        "was",
        "were",
        "has",
        "have",
        "had",
        "can",
        "could",
        "will",
        "would",
        "may",
        "might",
        "must",
        "should",
        "shall",
    }
)
FINITE = ("VBD", "VBZ", "VBP", "MD")
_NOUN_BEFORE = ("DT", "PRP$", "JJ", "JJR", "JJS", "POS")
_OBJECT_AFTER = ("DT", "PRP$", "CD", "IN")


class Word(NamedTuple):
    """A tagged word: characters `start` to `end` of the sentence."""

    text: str
    tag: str
    start: int
    end: int

    @property
    def lower(self) -> str:
        """The word in lower case."""
        return self.text.lower()


def tagged(sentence: str) -> list[Word]:
    """Return the words and punctuation marks (tag `PUNCT`) of a sentence, in order."""
    matches = list(_WORD.finditer(sentence))
    texts = [m[0] for m in matches]
    tags = _mended(texts, _tags(texts))
    return [Word(m[0], tag, m.start(), m.end()) for m, tag in zip(matches, tags, strict=True)]


@cache
def _tagger() -> Any:
    from textblob.en.taggers import PatternTagger

    return PatternTagger()


def _tags(texts: list[str]) -> list[str]:
    found = [tag for _, tag in _tagger().tag(" ".join(texts), tokenize=False)]
    if len(found) != len(texts):  # the tagger tokenises some characters differently
        found = [next((tag for _, tag in _tagger().tag(text, tokenize=False)), "NN") for text in texts]
    return found


def _mended(texts: Sequence[str], tags: Sequence[str]) -> list[str]:
    found: list[str] = []
    verb_seen = False
    for i, (text, tag) in enumerate(zip(texts, tags, strict=True)):
        fixed = _of_form(text, tag, first=i == 0) or _of_neighbours(texts, tags, found, verb_seen=verb_seen)
        verb_seen = fixed in FINITE or (verb_seen and fixed != "PUNCT")
        found.append(fixed)
    return found


def _of_form(text: str, tag: str, *, first: bool) -> str:
    """Return the tag that follows from the word's form alone, or an empty string."""
    if not text[0].isalnum():
        return "POS" if len(text) > 1 or text in "'’" else "PUNCT"
    if text.lower() in AUXILIARIES and (text[0].islower() or first):
        return "MD" if tag == "MD" else "VBD" if text.lower() in ("was", "were", "had") else "VBZ"
    if text[0].isdigit():
        return "CD" if text.replace(",", "").replace(".", "").isdigit() else "JJ"
    if text[0].isupper() and not first:
        return "NNP"
    return ""


def _of_neighbours(texts: Sequence[str], tags: Sequence[str], found: Sequence[str], *, verb_seen: bool) -> str:
    """Return the tag of the first word without one in `found`, judging by its neighbours."""
    i = len(found)
    tag, before, after = tags[i], found[i - 1] if i else "", tags[i + 1] if i + 1 < len(tags) else ""
    if texts[i].lower() == "her":
        return "PRP$" if after.startswith(("NN", "JJ", "CD")) else "PRP"
    if texts[i].lower() == "that" and before.startswith("NN"):
        return "WDT"
    if before in _NOUN_BEFORE and tag in ("VB", "VBP", "VBD", "VBZ"):
        return "JJ" if after.startswith("NN") else "NN"
    if tag in ("VB", "VBP") and verb_seen and before.startswith("NN"):
        return "NN"
    if tag == "VBN" and not verb_seen and before.startswith(("PRP", "W", "NN")) and not _verb_follows(texts, tags, i):
        return "VBD"
    if before in ("NNS", "PRP") and tag in ("NN", "VB") and after in _OBJECT_AFTER and not verb_seen:
        return "VBP"
    if before.startswith(("NN", "WDT")) and tag == "NNS" and after in ("DT", "PRP$", "CD") and not verb_seen:
        return "VBZ"  # "the wheel weighs nine kilograms"
    return tag


def _verb_follows(texts: Sequence[str], tags: Sequence[str], i: int) -> bool:
    """Return whether a verb follows before the next punctuation mark, as in "letters sent from Arl are stamped"."""
    for text, tag in zip(texts[i + 1 :], tags[i + 1 :], strict=True):
        if not text[0].isalnum() or tag in ("CC", "WDT", "WP"):
            return False
        if tag in ("VBD", "VBZ", "VBP", "MD") or text.lower() in AUXILIARIES:
            return True
    return False
