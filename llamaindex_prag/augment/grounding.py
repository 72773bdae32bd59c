"""Check whether an answer could have come from a passage: all of its content words occur there.

A coarse test against invented answers, modelled on the answer-consistency filters of question generation. It compares
words, not meanings: "41" for "forty-one" counts as not grounded.
"""

from __future__ import annotations

import re
import unicodedata

from rag_backbone.text.units import content_words, stop_words

YES_NO = frozenset({"yes", "no"})
_SEPARATOR = re.compile(r"(?<=\d),(?=\d)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w'\u2019\-]+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


class PassageWords:
    """Looks up words in a passage.

    Args:
        *texts: Parts of the passage, such as title and text.
    """

    def __init__(self, *texts: str) -> None:
        self._text = folded(" ".join(texts))
        self._words = frozenset(_forms(self._text))

    def supports(self, question: str, answer: str) -> bool:
        """Return whether all content words of the answer occur in the passage.

        "Yes" and "no" have no content words; for them, half of the question's content words must occur.
        """
        bare = folded(answer).strip(" .!")
        if bare in YES_NO:
            return self.share(question) >= 0.5
        return self.share(bare) == 1.0

    def knows(self, question: str) -> bool:
        """Return whether a question is about the passage: 1/4 of its content words and 1/2 of its names occur."""
        names = _NAME.findall(question)
        known = sum(self.share(name) == 1.0 for name in names)
        return self.share(question) >= 0.25 and known >= len(names) / 2

    def share(self, text: str) -> float:
        """Return the share of a text's content words that occur in the passage; 1 if it has none."""
        wanted = _content(folded(text))
        return sum(map(self._holds, wanted)) / len(wanted) if wanted else 1.0

    def _holds(self, word: str) -> bool:
        if _UNSPACED.search(word):  # scripts without spaces have no word boundaries to compare
            return word in self._text
        return word in self._words or any(form in self._words for form in _forms(word))


def folded(text: str) -> str:
    """Normalise a text: lower case, compatibility forms, straight apostrophes, no thousands separators."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return _SEPARATOR.sub("", text)


def _content(text: str) -> list[str]:
    return [text[s.start : s.end] for s in content_words(text)]


def _forms(text: str) -> set[str]:
    """Return the words of a text, also without possessive or plural endings, and the parts of compounds."""
    listed = stop_words()
    found: set[str] = set()
    for word in re.findall(r"\w+(?:['.\-]\w+)*", text):
        for part in {word, *re.split(r"['\-]", word)}:
            found.update((part, part.removesuffix("'s")))
            if len(part) > 3:
                found.add(part.removesuffix("s"))
    return {word for word in found if len(word) > 1 or word.isdigit() or not word.isascii()} - listed
