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
from itertools import dropwhile

from llamaindex_prag.augment.rules.tagged_words import AUXILIARIES, FINITE, Word, tagged

_IN_PHRASE = ("DT", "PDT", "PRP$", "CD", "JJ", "JJR", "JJS", "NN", "NNS", "NNP", "NNPS", "POS", "VBG", "FW")
_DETERMINERS = ("DT", "PRP$", "PDT")
_RELATIVE = ("WDT", "WP", "WP$")
_NOUNS = ("NN", "NNS", "NNP", "NNPS")
_SUBJECTS = ("NN", "NNS", "NNP", "NNPS", "PRP", "VBG", "CD")
_AFTER_AUXILIARY = ("VBN", "VBD", "VBG", "RB", "VB")
_SUBORDINATORS = frozenset({"although", "because", "if", "though", "whereas", "while"})
_STATES = frozenset({"based", "called", "known", "located", "named", "situated", "spoken", "used"})
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
    for segment in _segments(_joined_places(_outside_brackets(tagged(sentence)))):
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
        if i > middle and i + 1 < len(words) and words[i].tag == "CC" and words[i + 1].tag in _IN_PHRASE:
            i += 1  # "law and political science"
            while i < len(words) and words[i].tag in _IN_PHRASE:
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
    _subject: list[Word] = field(default_factory=list)
    """A subject whose verb comes after an aside: "Her father, Ole Brandt, was a smith"."""

    def take(self, segment: Sequence[Word]) -> None:
        words = list(dropwhile(lambda w: w.tag == "CC" or w.lower in _SUBORDINATORS, segment))
        if not words:
            return
        coordinated = segment[0].tag == "CC" and self.found
        if words[0].tag in ("VBN", "VBD") and len(words) > 1 and (coordinated or words[0].tag == "VBN"):
            self._take_participle(words, coordinated=bool(coordinated))
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
        while subject and subject[-1].tag == "RB":  # "Kray easily won"
            subject.pop()
        if relative and self._noun:
            if linked or subject:
                rest = [*rest, *linked, *self._noun]
            subject = subject or list(self._noun)
        elif not subject and not front and self._subject:
            subject = self._subject
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
            self._before, self._subject = [], []
            self._remember(rest or subject)

    def _take_fragment(self, words: list[Word]) -> None:
        if words[0].tag in ("IN", "TO"):
            if self.found and not self._before:
                last = self.found[-1]
                self.found[-1] = Clause(last.subject, last.verb, (*last.pieces, *pieces_of(words)))
            else:
                self._before += words
        elif words[-1].tag in _SUBJECTS and not self._subject:
            self._subject = words
        self._remember(words)

    def _take_participle(self, words: list[Word], *, coordinated: bool) -> None:
        """Read "built in Lusk" as "was built in Lusk", about the noun before it; "and built it" as "she built it"."""
        last = self.found[-1] if self.found else None
        defined = last is not None and _is_be(last.verb[-1])
        subject = last.subject if last is not None and (coordinated or defined) else self._noun
        if not subject:
            return
        verb = [words[0]._replace(tag="VBD")]
        passive = len(last.verb) > 1 and _is_be(last.verb[0]) if coordinated and last is not None else True
        if passive:
            past = words[0].lower not in _STATES
            plural = subject[-1].tag in ("NNS", "NNPS")
            be = ("were" if plural else "was") if past else ("are" if plural else "is")
            verb.insert(0, Word(be, "VBD" if past else "VBZ", words[0].start, words[0].start))
        self.found.append(Clause(tuple(subject), tuple(verb), tuple(pieces_of(words[1:]))))
        self._remember(words[1:])

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


def _joined_places(words: Sequence[Word]) -> list[Word]:
    """Join a place and those that contain it into one name: "in Lusk, Nebraska, United States"."""
    found: list[Word] = []
    i = 0
    while i < len(words):
        end = _names_end(words, i) if found and found[-1].tag in ("IN", "TO") else i
        while end > i and end + 1 < len(words) and words[end].text == "," and words[end + 1].tag == "NNP":
            further = _names_end(words, end + 1)
            if further < len(words) and words[further].tag not in ("PUNCT", "IN", "CC"):
                break  # "in Lusk, Petra Vold founded"
            end = further
        name = words[i : max(end, i + 1)]
        if len(name) > 1 and any(w.text == "," for w in name):
            text = " ".join(w.text for w in name).replace(" ,", ",")
            name = [Word(text, "NNP", name[0].start, name[-1].end)]
        found += name
        i = max(end, i + 1)
    return found


def _names_end(words: Sequence[Word], i: int) -> int:
    """Return where the run of names from position `i` ends."""
    return next((j for j in range(i, len(words)) if words[j].tag != "NNP"), len(words))


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
        elif word.tag == "CC" and _has_verb(part) and _next_tag(words[i + 1 :]) in (*FINITE, "VBN"):
            yield part
            part = [word]
        elif word.tag == "VBN" and after in ("IN", "TO") and part and part[-1].tag in _NOUNS:
            yield part  # "a mill built by Tizzen"
            part = [word]
        else:
            part.append(word)
    yield part


def _has_verb(words: Sequence[Word]) -> bool:
    return _finite(words) or bool(words and words[0].tag == "VBN")


def _next_tag(words: Sequence[Word]) -> str:
    """Return the tag of the first word that is no adverb."""
    return next((w.tag for w in words if w.tag != "RB"), "")


def _is_be(word: Word) -> bool:
    return word.lower in ("is", "are", "was", "were")


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
