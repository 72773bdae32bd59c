"""Clauses of an English sentence: subject, verb, and the remaining phrases, in pieces that can be asked about.

    "In 1923 she founded the school of Lusk, which has trained 740 roofers."
    she | founded | the school, of Lusk, In 1923
    the school of Lusk | has trained | 740 roofers

Shallow chunking of part-of-speech tags, not a parse: sentences it cannot handle give odd clauses or none. Coordinated
verbs inherit the subject, relative clauses take the noun before them, and phrases before the subject move to the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llamaindex_prag.augment.rules.tagged_words import AUXILIARIES, FINITE, Word, tagged

_IN_PHRASE = ("DT", "PDT", "PRP$", "CD", "JJ", "JJR", "JJS", "NN", "NNS", "NNP", "NNPS", "POS", "VBG", "FW")
_DETERMINERS = ("DT", "PRP$", "PDT")
_RELATIVE = ("WDT", "WP", "WP$")
_SUBJECTS = ("NN", "NNS", "NNP", "NNPS", "PRP", "VBG", "CD")
_AFTER_AUXILIARY = ("VBN", "VBD", "VBG", "RB", "VB")
_QUOTES = frozenset('"“”„«»`')


@dataclass(frozen=True, slots=True)
class Piece:
    """A phrase and the preposition before it; other words have an empty phrase."""

    preposition: tuple[Word, ...]
    phrase: tuple[Word, ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """Preposition and phrase together."""
        return self.preposition + self.phrase

    @property
    def core(self) -> tuple[Word, ...]:
        """The phrase without leading articles and possessives."""
        return core_of(self.phrase)


@dataclass(frozen=True, slots=True)
class Clause:
    """One verb with its subject and phrases."""

    subject: tuple[Word, ...]
    verb: tuple[Word, ...]
    pieces: tuple[Piece, ...]


def core_of(phrase: Sequence[Word]) -> tuple[Word, ...]:
    """Return a phrase without leading articles and possessives."""
    start = next((i for i, w in enumerate(phrase) if w.tag not in _DETERMINERS and w.tag != "POS"), len(phrase))
    return tuple(phrase[start:])


def clauses(sentence: str) -> list[Clause]:
    """Return the clauses of a sentence, in order."""
    reader = _Reader()
    for segment in _segments(_outside_brackets(tagged(sentence))):
        reader.take(segment)
    return reader.found


def pieces_of(words: Sequence[Word]) -> list[Piece]:
    """Split words at prepositions and at the start of each phrase."""
    found: list[Piece] = []
    i = 0
    while i < len(words):
        start = i
        while i < len(words) and words[i].tag in ("IN", "TO"):
            i += 1
        middle = i
        while i < len(words) and words[i].tag in _IN_PHRASE and not (i > middle and words[i].tag in _DETERMINERS):
            i += 1
        if i == start:
            i = middle = start + 1
        found.append(Piece(tuple(words[start:middle]), tuple(words[middle:i])))
    return found


@dataclass(slots=True)
class _Reader:
    """Reads segments in order, and remembers what later ones refer to."""

    found: list[Clause] = field(default_factory=list)
    _before: list[Word] = field(default_factory=list)
    """An opening without a verb, such as "In 1923,"."""
    _noun: tuple[Word, ...] = ()
    """The noun that a following relative clause refers to."""

    def take(self, segment: Sequence[Word]) -> None:
        words = list(segment[1:] if segment and segment[0].tag == "CC" else segment)
        if not words:
            return
        if not _finite(words):
            self._take_fragment(words)
            return
        relative = [w for w in words[:2] if w.tag in _RELATIVE]
        linked = words[: words.index(relative[0])] if relative else []  # "at which"
        body = words[len(linked) + 1 :] if relative else words
        at = _verb(body)
        if at is None:
            return
        verb, rest = _split_verb(body[at:])
        front, subject = _split_front(body[:at])
        if relative and self._noun:
            if linked or subject:
                rest = [*rest, *linked, *self._noun]
            subject = subject or list(self._noun)
        elif not subject and not front and self.found:
            subject = list(self.found[-1].subject)
        elif not subject:  # "On the middle pier stands a statue"
            pieces = pieces_of(rest)
            count = 1 + (len(pieces) > 1 and pieces[1].words[0].lower == "of")
            subject = [w for p in pieces[:count] for w in p.words]
            rest = [w for p in pieces[count:] for w in p.words]
        if subject and subject[-1].tag in _SUBJECTS:
            said = (*pieces_of(rest), *pieces_of(front), *pieces_of(self._before))
            self.found.append(Clause(tuple(subject), tuple(verb), said))
            self._before = []
            self._remember(rest or subject)

    def _take_fragment(self, words: list[Word]) -> None:
        if words[0].tag in ("IN", "TO"):
            if self.found and not self._before:
                last = self.found[-1]
                self.found[-1] = Clause(last.subject, last.verb, (*last.pieces, *pieces_of(words)))
            else:
                self._before += words
        self._remember(words)

    def _remember(self, words: Sequence[Word]) -> None:
        nouns = [p.phrase for p in pieces_of(words) if p.phrase]
        if nouns:
            self._noun = nouns[-1]


def _outside_brackets(words: Sequence[Word]) -> list[Word]:
    found, depth = [], 0
    for word in words:
        if word.text in "([":
            depth += 1
        elif word.text in ")]":
            depth = max(0, depth - 1)
        elif not depth and word.text not in _QUOTES:
            found.append(word)
    return found


def _segments(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Split at punctuation, before relative pronouns, and where another verb with the same subject begins."""
    part: list[Word] = []
    for i, word in enumerate(words):
        if (word.tag == "PUNCT" and word.text not in "-%$£€/&") or word.tag == "WRB":  # "when"
            yield part
            part = []
            continue
        after = words[i + 1].tag if i + 1 < len(words) else ""
        if word.tag in _RELATIVE and part:
            linked = [part.pop()] if part[-1].tag == "IN" else []
            yield part
            part = [*linked, word]
        elif word.tag == "CC" and after in (*FINITE, "VBN") and _finite(part):
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _finite(words: Sequence[Word]) -> bool:
    return _verb(words) is not None


def _verb(words: Sequence[Word]) -> int | None:
    return next((i for i, w in enumerate(words) if w.tag in FINITE), None)


def _split_verb(words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
    helped = words[0].lower in AUXILIARIES or words[0].tag == "MD"
    follows = _AFTER_AUXILIARY if helped else ("RB",)
    end = next((i for i, w in enumerate(words) if i and w.tag not in follows), len(words))
    while end > 1 and words[end - 1].tag == "RB":
        end -= 1
    return list(words[:end]), list(words[end:])


def _split_front(words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
    """Split off what precedes the subject; return it, and the subject with its modifiers."""
    if not words or words[0].tag not in ("IN", "TO"):
        return [], list(words)
    if words[-1].tag == "PRP":
        return list(words[:-1]), list(words[-1:])
    pieces = pieces_of(words)
    at = next((j for j in range(len(pieces) - 1, 0, -1) if pieces[j].phrase and not pieces[j].preposition), None)
    if at is None:
        return list(words), []
    return [w for p in pieces[:at] for w in p.words], [w for p in pieces[at:] for w in p.words]
