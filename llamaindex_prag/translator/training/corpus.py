"""What a translator is trained on: passages, each with questions that it answers.

    {"title": ..., "text": ..., "questions": [{"question": ..., "answer": ...}]}

One such object stands in each line of a corpus; title and questions may be missing. Every passage has questions by rule
beside those given, so any text is a corpus. Answers are taught as they stand, unless a question's `source` is "model":
such a one the base model answers, with the passage before it. Which of them a step uses is drawn anew each time, by
seed and step alone: training that goes on after an interruption draws what it would have drawn.
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
"""Whose questions come with an answer that is taught as it stands."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A passage to learn translating on."""

    text: str
    title: str = ""
    given: tuple[QA, ...] = ()
    """Questions that came with it."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Lessons to train on, and others to judge by."""

    train: tuple[Lesson, ...]
    validation: tuple[Lesson, ...]

    @property
    def digest(self) -> str:
        """Equal exactly for equal corpora: training goes on only with the one that it began with."""
        found = hashlib.sha256()
        for part in (self.train, self.validation):
            found.update(f"{len(part)}\n".encode())
            for lesson in part:
                questions = json.dumps([qa.to_dict() for qa in lesson.given], sort_keys=True)
                found.update(f"{text_hash(lesson.text)}{lesson.title}{questions}".encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def read_lessons(path: Path) -> list[Lesson]:
    """Read a corpus of JSON lines; passages that occur twice are taken once, with the questions of both.

    Raises:
        ConfigurationError: If there is none, or a line is not of that form.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no corpus {path}; give a file of JSON lines with a text in each")
    found: dict[str, Lesson] = {}
    for number, data in read_json_lines(path):
        try:
            lesson = Lesson(data["text"], data.get("title", ""), tuple(map(QA.from_dict, data.get("questions", []))))
            blank = not lesson.text.strip()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"line {number} of {path} is no passage with a text: {error!r}") from error
        if blank:
            raise ConfigurationError(f"line {number} of {path} has a blank text")
        before = found.get(text_hash(lesson.text))
        given = (*before.given, *(qa for qa in lesson.given if qa not in before.given)) if before else lesson.given
        found[text_hash(lesson.text)] = Lesson(lesson.text, lesson.title, given)
    return list(found.values())


def split(lessons: Sequence[Lesson], *, validation: int, seed: int = 0) -> Corpus:
    """Set `validation` passages apart, by seed and text. Passages of one title stay together.

    Raises:
        ConfigurationError: If too few are left to train on.
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
            f"the corpus has {len(lessons)} passages, of which {validation} are to be set apart for validation: at "
            "least 2, and at most a third, must be. Give more passages, or validate on fewer."
        )
    return Corpus(tuple(left), tuple(apart))


def _subject(lesson: Lesson) -> str:
    return lesson.title or text_hash(lesson.text)


def questions_of(lesson: Lesson, n: int) -> list[QA]:
    """The given questions, and at most `n` by rule."""
    return [*lesson.given, *_by_rule(lesson.text, lesson.title, n)]


@lru_cache(maxsize=16384)
def _by_rule(text: str, title: str, n: int) -> tuple[QA, ...]:
    return tuple(rule_questions(text.strip(), n, title=title))


def taught_lessons(translator: Translator, asked: Sequence[tuple[str, Sequence[QA]]]) -> list[TrainingDocument]:
    """(passage, questions) as sequences to train on or to judge by."""
    recipe = translator.config.recipe.changed(objective="distill", unrelated=0, with_passage=0, questions=1)
    return distilled(translator.lm.engine, recipe, asked, known=KNOWN)


def drawn(lessons: Sequence[Lesson], step: int, size: int, seed: int) -> list[Lesson]:
    """The lessons of a step: every one once before any comes again, in an order of each round's own."""
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
