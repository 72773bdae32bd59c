"""Names and numbers in a text, and words in the form in which they are compared. Rests on words and capitals only."""

from __future__ import annotations

from collections.abc import Iterable

from rag_backbone.text.units import Span, not_a_stop_word, words


def names_and_numbers(sentence: str) -> list[Span]:
    """Return words with a digit or an initial capital, except stop words."""
    spans = words(sentence)
    content = not_a_stop_word()([sentence[s.start : s.end] for s in spans])
    return [
        s
        for s, carries in zip(spans, content, strict=True)
        if carries and (sentence[s.start].isupper() or any(c.isdigit() for c in sentence[s.start : s.end]))
    ]


def vocabulary(text: str) -> frozenset[str]:
    """Return the words of a text in the form in which they are compared, with the parts of hyphenated words."""
    found = [text[s.start : s.end] for s in words(text)]
    return frozenset(word_key(part) for word in found for part in _with_parts(word))


def word_key(word: str) -> str:
    """Return a word in the form in which it is compared: letters and digits, case folded, without a possessive s."""
    key = word.casefold().replace("\u2019", "'").removesuffix("'s")
    return "".join(c for c in key if c.isalnum())


def _with_parts(word: str) -> Iterable[str]:
    yield word
    if "-" in word:
        yield from word.split("-")
