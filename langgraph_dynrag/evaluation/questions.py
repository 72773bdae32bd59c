"""The questions of an evaluation: text, correct answers, supporting passages, and the paragraphs of a data set."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

from langgraph_dynrag.calibration.questions import CalibrationQuestion
from rag_backbone.errors import ConfigurationError

_SUPPORTING = ("supporting", "documents")
"""Keys of a mapping that name the supporting passages."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of a question's context."""

    title: str
    text: str
    supporting: bool

    @property
    def id(self) -> str:
        """An identifier that is the same if the paragraph occurs in several questions."""
        return f"{self.title}: {self.text[:200]}"


@dataclass(frozen=True, slots=True)
class EvaluationQuestion:
    """A question with what is known about its answer.

    `evaluate` also takes strings and mappings, which `of` converts.
    """

    id: str
    text: str
    answers: tuple[str, ...] = ()
    """The correct answer and its aliases; empty if none is known."""
    paragraphs: tuple[Paragraph, ...] = ()
    """The paragraphs that a data set gives for the question."""
    kind: str = ""
    """The data set's kind of question."""
    named: tuple[str, ...] = ()
    """Titles, sources or ids of the supporting passages, for questions without paragraphs."""

    @property
    def supporting(self) -> frozenset[str]:
        """What identifies the supporting passages: the names that were given, or the ids of the paragraphs."""
        return frozenset(self.named) or frozenset(p.id for p in self.paragraphs if p.supporting)

    @classmethod
    def of(
        cls, value: EvaluationQuestion | CalibrationQuestion | str | Mapping[str, Any], where: str = ""
    ) -> EvaluationQuestion:
        """Convert a string, or a mapping with `question` and optionally `answers`, `supporting` and `id`.

        Args:
            value: The question. `answer` is read as well as `answers`, and `documents` as well as `supporting`.
            where: Prefix of error messages, such as the file and line.

        Raises:
            ConfigurationError: If the question is empty, or a field has the wrong type.
        """
        if isinstance(value, EvaluationQuestion):
            if not value.text.strip():
                raise ConfigurationError(f"{where}the question with id {value.id!r} is empty; its text is needed")
            return value
        asked = CalibrationQuestion.of(value, where)
        given: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        named = next((given[key] for key in _SUPPORTING if key in given), ())
        listed = [named] if isinstance(named, str) else named
        if not isinstance(listed, list | tuple) or not all(isinstance(n, str) for n in listed):
            raise ConfigurationError(
                f"{where}the supporting passages of {asked.question!r} are {named!r}; a list of titles or ids is needed"
            )
        names = tuple(dict.fromkeys(n.strip() for n in listed if n.strip()))
        return cls(str(given.get("id") or asked.question), asked.question, asked.answers, named=names)

    def by_title(self) -> EvaluationQuestion:
        """Return the question with its supporting paragraphs named by title, to recognise them in another corpus."""
        titles = tuple(dict.fromkeys(p.title for p in self.paragraphs if p.supporting))
        return EvaluationQuestion(self.id, self.text, self.answers, self.paragraphs, self.kind, self.named or titles)


def corpus(questions: Iterable[EvaluationQuestion]) -> list[Document]:
    """Return all paragraphs of the questions, without duplicates."""
    documents: dict[str, Document] = {}
    for question in questions:
        for p in question.paragraphs:
            documents.setdefault(p.id, Document(p.text, id=p.id, metadata={"title": p.title, "source": p.title}))
    return list(documents.values())


def sample(questions: Sequence[EvaluationQuestion], n: int, seed: int) -> list[EvaluationQuestion]:
    """Draw `n` questions by the seed and return them in their order; return all if there are no more than `n`."""
    if n >= len(questions):
        return list(questions)
    drawn = random.Random(seed).sample(range(len(questions)), n)  # noqa: S311 - a draw, no secret
    return [questions[i] for i in sorted(drawn)]


def distinct(questions: Iterable[EvaluationQuestion]) -> tuple[list[EvaluationQuestion], list[str]]:
    """Drop questions that ask the same as an earlier one, apart from case and white space.

    Returns:
        The questions that are left, and the texts of those that were dropped.
    """
    kept: dict[str, EvaluationQuestion] = {}
    dropped = []
    for question in questions:
        folded = " ".join(question.text.casefold().split())
        if folded in kept:
            dropped.append(question.text)
        else:
            kept[folded] = question
    return list(kept.values()), dropped
