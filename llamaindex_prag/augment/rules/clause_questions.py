"""Questions as people ask them, made by rule from the clauses of an English passage.

    she | founded | the school, of Lusk, In 1923  ->  "In which year did Petra Vold found the school of Lusk?"

Each phrase of each clause is asked for, with the words in the order of a question. A small model asks such questions
worse than these rules do, and `phrases.phrase_questions` (the sentence with a hole) lies farther from what users ask.
The same passage and seed always give the same questions. Knows no models.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.rules.clauses import Clause, Piece, clauses, core_of
from llamaindex_prag.augment.rules.tagged_words import AUXILIARIES, Word
from rag_backbone.text.units import sentences

MIN_WORDS, MAX_WORDS = 4, 7
"""Of a question at least, of an answer at most."""
_ROUNDS = 4  # of drawing other forms
_YEAR = re.compile(r"1\d{3}|20\d\d")
_WHERE = frozenset({"in", "at", "from", "near", "on", "to"})
_STRANDED = frozenset({"of", "as", "by", "for", "with", "to", "from"})
_PRONOUNS = frozenset({"he", "she", "it", "they"})
_POSSESSIVES = frozenset({"his", "her", "its", "their"})
_DANGLING = ("IN", "TO", "DT", "CC", "PRP$", "PUNCT")
_BRACKETS = re.compile(r"\s*\([^()]*\)$")  # "Mercury (planet)"
_GLUED = re.compile(r"\s+(?=[,.;:!?%)]|['’]s\b|['’](?=\s|$))")


def clause_questions(text: str, n: int, *, title: str = "", seed: int = 0) -> list[QA]:
    """At most `n` questions, spread over the phrases of the passage.

    Args:
        text: The passage.
        n: How many; fewer if the passage is short or its sentences are not understood.
        title: Its title, which takes the place of pronouns.
        seed: Of the forms.
    """
    rng = random.Random(f"{seed}/{title}/{text}".encode("utf-8", "surrogatepass"))  # noqa: S311
    title = _BRACKETS.sub("", title).strip()
    said = [text[s.start : s.end].strip() for s in sentences(text)]
    read = [(s, c) for s in said for c in clauses(s)]
    found: dict[str, QA] = {}
    for _ in range(_ROUNDS):
        asked = [qa for s, c in read for qa in _Asker(s, c, title, rng).questions()]
        rng.shuffle(asked)
        for qa in asked:
            found.setdefault(qa.question, qa)
    return list(found.values())[: max(n, 0)]


@dataclass(slots=True)
class _Asker:
    sentence: str
    clause: Clause
    title: str
    rng: random.Random

    def questions(self) -> Iterator[QA]:
        """One question for each phrase, in forms that chance chooses."""
        for i, piece in enumerate(self.clause.pieces):
            if piece.core:
                yield from self._kept(*self._of_piece(i, piece))
        subject = core_of(self.clause.subject)
        named = self.title.casefold() in _joined(self._told(self.clause.subject)).casefold()
        if subject and not (self.title and named) and not any(w.tag in ("PRP", "CC") for w in subject):
            yield from self._kept(self._of_subject(subject), subject)

    def _kept(self, words: Sequence[str], answer: Sequence[Word]) -> Iterator[QA]:
        said = " ".join(self.sentence[answer[0].start : answer[-1].end].split())
        asked = _joined(words).strip(" ,")
        if len(words) < MIN_WORDS or len(said.split()) > MAX_WORDS or said.casefold() == self.title.casefold():
            return
        if len(said) < 2 and not said.isdigit():  # blank, where what was joined did not stand together
            return
        if self.title and self.title.casefold() not in asked.casefold() and self._chance(0.35):
            asked = self.rng.choice([f"{self.title}: {asked}", f"{asked} ({self.title})"])
        yield QA(asked[0].upper() + asked[1:] + "?", said, style="phrase", source="cloze")

    def _of_piece(self, i: int, piece: Piece) -> tuple[list[str], tuple[Word, ...]]:
        """(words of the question, answer)."""
        pieces, skipped = self.clause.pieces, {i}
        before, which, answer = self._interrogative(piece.preposition, piece.core)
        following = pieces[i + 1].words if i + 1 < len(pieces) and pieces[i + 1].phrase else ()
        if following and following[0].lower == "of" and answer[-1] is piece.core[-1] and self._chance(0.6):
            answer, skipped = (*answer, *following), {i, i + 1}  # "the roof of the crane station"
        rest = [p for j, p in enumerate(pieces) if j not in skipped]
        if len(rest) > 2 and self._chance(0.5):
            rest = rest[: self.rng.randint(1, len(rest))]
        words = [w for p in rest for w in p.words]
        while words and words[-1].tag in _DANGLING:
            words.pop()
        stranded = before if before and before[-1] in _STRANDED and self._chance(0.5) else []
        if before and not stranded and which == ["who"]:
            which = ["whom"]
        return [*([] if stranded else before), *which, *self._inverted(), *self._told(words), *stranded], answer

    def _chance(self, part: float) -> bool:
        return self.rng.random() < part

    def _of_subject(self, subject: Sequence[Word]) -> list[str]:
        proper = all(w.tag == "NNP" for w in subject)
        which = "who" if proper and self._chance(0.6) else "what"
        words = [w for p in self.clause.pieces for w in p.words]
        return [which, *(w.text for w in self.clause.verb), *self._told(words)]

    def _interrogative(
        self, preposition: Sequence[Word], core: tuple[Word, ...]
    ) -> tuple[list[str], list[str], tuple[Word, ...]]:
        """(preposition that stays, question words, answer) for a phrase."""
        before = [w.lower for w in preposition]
        chance, first, last = self.rng.random(), core[0], core[-1]
        if len(core) == 1 and _YEAR.fullmatch(first.text):
            if before == ["in"] and chance < 0.3:
                return [], ["when"], core
            return before, ["which" if chance < 0.65 else "what", "year"], core
        if first.tag == "CD" and last.tag in ("NN", "NNS") and len(core) > 1:
            return before, ["how", "many", *(w.text for w in core[1:])], core if chance < 0.3 else core[:1]
        if first.tag == "CD":
            return before, ["how", "many"], core
        if all(w.tag in ("NNP", "POS") for w in core) and chance < 0.5:
            if before and before[-1] in _WHERE:
                return [], ["where"], core
            if not before or before == ["by"]:
                return before, ["who"], core
        if len(core) > 1 and last.tag in ("NN", "NNS", "NNP") and chance > 0.65 and _common(last.lower):
            return before, ["which", last.lower], core
        return before, ["what"], core

    def _inverted(self) -> list[str]:
        """The verb with its subject as a question has them: "did Petra Vold found"."""
        verb, subject = [w.text for w in self.clause.verb], self._told(self.clause.subject)
        first, tag = self.clause.verb[0], self.clause.verb[0].tag
        had = first.lower in ("has", "have", "had") and len(verb) == 1
        if (first.lower in AUXILIARIES or tag == "MD") and not had:
            return [first.lower, *subject, *verb[1:]]
        helper = "did" if tag == "VBD" else "does" if first.lower == "has" or first.lower.endswith("s") else "do"
        return [helper, *subject, _base(first.lower), *verb[1:]]

    def _told(self, words: Sequence[Word]) -> list[str]:
        """Words of the sentence, the title in the place of pronouns."""
        found: list[str] = []
        for word in words:
            if self.title and word.tag == "PRP" and word.lower in _PRONOUNS:
                found.append(self.title)
            elif self.title and word.tag == "PRP$" and word.lower in _POSSESSIVES:
                found += [self.title, "'s"]
            else:
                found.append(word.text if word.tag == "NNP" or word.text.isupper() else word.lower)
        return found


def _joined(words: Sequence[str]) -> str:
    return _GLUED.sub("", " ".join(words))


def _base(verb: str) -> str:
    from lemminflect import getLemma

    found: tuple[str, ...] = getLemma(verb, upos="VERB")
    return found[0] if found else verb


def _common(noun: str) -> bool:
    """Whether a word is a common noun: "mill", not "Kray"."""
    from lemminflect import getAllLemmas

    return "NOUN" in getAllLemmas(noun)
