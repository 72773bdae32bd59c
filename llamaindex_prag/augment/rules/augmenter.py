"""An augmenter without a model: questions by rule, for recipes that use few.

    English          clause_questions ("In which year did Petra Vold found ...?"), then blanks, then phrases
    other languages  blanks for names, numbers and dates, then for the longest words, in any script

`rule_questions` asks about everything, for a recipe that trains on some sixty questions; this augmenter selects a few
that are spread over the passage. Answers are the passage's own words. Nothing is rewritten: rules cannot reword a text
without changing what it says. Knows no models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Literal

from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.kept import hash_of
from llamaindex_prag.augment.qa_parsing import question_key
from llamaindex_prag.augment.rules.clause_questions import clause_questions
from llamaindex_prag.augment.rules.cloze import BLANK, cloze_questions, passage_question
from llamaindex_prag.augment.rules.phrases import phrase_questions
from llamaindex_prag.augment.rules.questions import is_english
from llamaindex_prag.progress import Tick
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import content_words, sentences

RULES_VERSION = 1
_SHORTEST = 2
"""Minimum number of letters of a word that is asked about."""
_REACH = 120
"""Characters shown on each side of a blank."""


class RuleAugmenter:
    """Generates questions about documents by rule; the same document always gets the same questions.

    Args:
        questions: Number of questions per document; a short document may get fewer.
        seed: Selects the forms of the questions.

    Example:
        >>> RuleAugmenter(questions=1).augment("Arl", "Arl was founded in 1683.").qas[0].answer
        '1683'
    """

    by: Literal["model", "rules"] = "rules"

    def __init__(self, *, questions: int = 3, seed: int = 0) -> None:
        if questions < 1:
            raise ConfigurationError(f"questions is {questions}; at least 1 is needed")
        self.questions, self.seed = questions, seed

    @property
    def key(self) -> str:
        """A hash that is equal exactly for augmenters that treat a document in the same way."""
        return hash_of(["rules", RULES_VERSION, self.questions, self.seed])

    def augment(self, title: str, text: str) -> Augmentation:
        """Augment a document.

        Raises:
            ConfigurationError: If the text is blank.
        """
        if not text.strip():
            raise ConfigurationError(f"the text of document {title!r} is blank; there is nothing to ask about")
        found: dict[str, QA] = {}
        for qa in self._candidates(title, text):
            found.setdefault(question_key(qa.question), qa)
            if len(found) == self.questions:
                break
        if found:
            return Augmentation(None, tuple(found.values()))
        note = "the rules found no question: the passage itself is the answer"
        return Augmentation(None, (passage_question(title, text),), (note,))

    async def aaugment(self, title: str, text: str) -> Augmentation:
        """Augment a document, synchronously: it takes milliseconds."""
        return self.augment(title, text)

    def augment_all(
        self, documents: Iterable[tuple[str, str]], *, progress: bool = True, advance: Tick | None = None
    ) -> list[Augmentation]:
        """Augment (title, text) pairs; too fast for a progress bar, so `progress` and `advance` are ignored."""
        del progress, advance
        return [self.augment(title, text) for title, text in documents]

    def _candidates(self, title: str, text: str) -> Iterator[QA]:
        n = self.questions
        if is_english(text):
            yield from clause_questions(text, n, title=title, seed=self.seed)
            yield from cloze_questions(text, n, title=title)
            yield from phrase_questions(text, n, title=title, seed=self.seed)
        else:
            yield from cloze_questions(text, n, title=title)
            yield from word_blanks(text, title=title)

    def __repr__(self) -> str:
        return f"RuleAugmenter(questions={self.questions})"


def word_blanks(text: str, *, title: str = "") -> Iterator[QA]:
    """Yield blanks for the words of a passage, the longest of each sentence first; independent of the language."""
    rows: list[list[QA]] = [list(_of_sentence(text[s.start : s.end].strip(), title)) for s in sentences(text)]
    for row in zip_longest(*rows):  # ask about every sentence once before asking about one again
        yield from (qa for qa in row if qa is not None)


def _of_sentence(sentence: str, title: str) -> Iterator[QA]:
    words: Sequence[tuple[int, int]] = [(s.start, s.end) for s in content_words(sentence)]
    for start, end in sorted(words, key=lambda w: w[0] - w[1]):
        answer = sentence[start:end]
        around = sentence[max(start - _REACH, 0) : start], sentence[end : end + _REACH]
        if len(answer) < _SHORTEST or not any(part.strip() for part in around) or answer in "".join(around):
            continue  # a second occurrence would reveal the answer
        shown = f"{around[0]}{BLANK}{around[1]}"
        about = f" about {title}" if title and title.casefold() not in shown.casefold() else ""
        yield QA(f'Fill in the blank{about}: "{shown}"', answer, sentence, "cloze", "cloze")
