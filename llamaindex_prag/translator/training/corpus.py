"""The training corpus of a translator: passages, each with questions that it answers.

    {"title": ..., "text": ..., "questions": [{"question": ..., "answer": ...}]}

A corpus has one such object per line; title and questions are optional. Rule-based questions are added for every
passage, so any text can be a corpus. Answers are taught verbatim, except that the base model, with the passage in its
prompt, answers questions whose `source` is "model". The lessons of a step depend only on seed and step, so a resumed
training draws the same lessons as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import QA, QuestionSource
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.training.distillation import distilled
from llamaindex_prag.training.examples import TrainingDocument
from rag_backbone.documents import read_json_lines
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.translator.translator import Translator


KNOWN: frozenset[QuestionSource] = frozenset({"cloze", "given"})
"""Question sources whose answers are taught verbatim."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A passage with its given questions."""

    text: str
    title: str = ""
    given: tuple[QA, ...] = ()
    """Questions from the corpus file."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Lessons for training and for validation."""

    train: tuple[Lesson, ...]
    validation: tuple[Lesson, ...]

    @property
    def digest(self) -> str:
        """Hash that is equal exactly for equal corpora; training resumes only with the corpus that it started with."""
        found = hashlib.sha256()
        for part in (self.train, self.validation):
            found.update(f"{len(part)}\n".encode())
            for lesson in part:
                questions = json.dumps([qa.to_dict() for qa in lesson.given], sort_keys=True)
                found.update(f"{text_hash(lesson.text)}{lesson.title}{questions}".encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def read_lessons(path: Path) -> list[Lesson]:
    """Read a corpus of JSON lines, merging duplicate passages and their questions.

    Raises:
        ConfigurationError: If the file does not exist, or a line does not have the required form.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no corpus {path}; give a file of JSON lines, each with a text")
    found: dict[str, Lesson] = {}
    for number, data in read_json_lines(path):
        try:
            lesson = Lesson(data["text"], data.get("title", ""), tuple(map(QA.from_dict, data.get("questions", []))))
            blank = not lesson.text.strip()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"line {number} of {path} is not a passage with a text: {error!r}") from error
        if blank:
            raise ConfigurationError(f"line {number} of {path} has a blank text")
        before = found.get(text_hash(lesson.text))
        given = (*before.given, *(qa for qa in lesson.given if qa not in before.given)) if before else lesson.given
        found[text_hash(lesson.text)] = Lesson(lesson.text, lesson.title, given)
    return list(found.values())


def split(lessons: Sequence[Lesson], *, validation: int, seed: int = 0) -> Corpus:
    """Hold out at least `validation` passages, chosen by seed and title; passages with the same title stay together.

    Raises:
        ConfigurationError: If `validation` is below 2, or too few passages are left to train on.
    """
    titles = sorted({_subject(lesson) for lesson in lessons})
    random.Random(seed).shuffle(titles)  # noqa: S311
    apart: list[Lesson] = []
    grouped: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        grouped.setdefault(_subject(lesson), []).append(lesson)
    while titles and len(apart) < validation:
        apart += grouped.pop(titles.pop())
    left = [lesson for title in titles for lesson in grouped[title]]
    if validation < 2 or len(left) < 2 * validation:
        raise ConfigurationError(
            f"the corpus has {len(lessons)} passages, and {validation} should be set apart for validation; it must be "
            "at least 2 and at most a third. Give more passages, or validate on fewer."
        )
    return Corpus(tuple(left), tuple(apart))


def _subject(lesson: Lesson) -> str:
    return lesson.title or text_hash(lesson.text)


def questions_of(lesson: Lesson, n: int) -> list[QA]:
    """Return the given questions, followed by at most `n` rule-based ones."""
    return [*lesson.given, *_by_rule(lesson.text, lesson.title, n)]


@lru_cache(maxsize=16384)
def _by_rule(text: str, title: str, n: int) -> tuple[QA, ...]:
    return tuple(rule_questions(text.strip(), n, title=title))


def taught_lessons(translator: Translator, asked: Sequence[tuple[str, Sequence[QA]]]) -> list[TrainingDocument]:
    """Turn (passage, questions) pairs into sequences for training or validation."""
    recipe = translator.config.recipe.changed(objective="distill", unrelated=0, with_passage=0, questions=1)
    return distilled(translator.lm.engine, recipe, asked, known=KNOWN)


def drawn(lessons: Sequence[Lesson], step: int, size: int, seed: int) -> list[Lesson]:
    """Return the lessons of a step; each epoch uses every lesson once, in a different order."""
    found = []
    for place in range(step * size, (step + 1) * size):
        round_, i = divmod(place, len(lessons))
        found.append(lessons[_order(len(lessons), f"{seed}/{round_}")[i]])
    return found


@lru_cache(maxsize=4)
def _order(count: int, seed: str) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311
    return tuple(order)
