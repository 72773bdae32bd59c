"""Read questions with their paragraphs, in the formats of HotpotQA, 2WikiMultihopQA and MuSiQue."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from rag_backbone.documents import read_json_lines, read_text_file
from rag_backbone.errors import ConfigurationError


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
class Question:
    """A question with its answers and paragraphs."""

    id: str
    text: str
    answers: tuple[str, ...]
    """The answer and its aliases."""
    paragraphs: tuple[Paragraph, ...]
    kind: str

    @property
    def supporting(self) -> frozenset[str]:
        """Ids of the supporting paragraphs."""
        return frozenset(p.id for p in self.paragraphs if p.supporting)


def load_questions(path: Path) -> list[Question]:
    """Read a file in any of the three formats, which is detected from its fields.

    Raises:
        ConfigurationError: If the file is missing, empty or of another format.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no data file {path}")
    try:
        text = read_text_file(path).strip()
        items = json.loads(text) if text.startswith("[") else [item for _, item in read_json_lines(path)]
    except ValueError as error:
        raise ConfigurationError(f"{path} is neither a JSON array nor JSON lines: {error}") from error
    if not items:
        raise ConfigurationError(f"{path} contains no questions")
    try:
        read = _musique if "paragraphs" in items[0] else _hotpot
        return [read(item) for item in items if item.get("answerable", True)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is in none of the formats of HotpotQA, 2WikiMultihopQA and MuSiQue ({error!r})"
        ) from error


def corpus(questions: Iterable[Question]) -> list[Document]:
    """Return all paragraphs of the questions, without duplicates."""
    documents: dict[str, Document] = {}
    for question in questions:
        for p in question.paragraphs:
            documents.setdefault(p.id, Document(p.text, id=p.id, metadata={"title": p.title, "source": p.title}))
    return list(documents.values())


def sample(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """Draw `n` questions by the seed and return them in file order; return all if there are no more than `n`."""
    import random

    if n >= len(questions):
        return list(questions)
    return [questions[i] for i in sorted(random.Random(seed).sample(range(len(questions)), n))]


def _hotpot(item: dict[str, Any]) -> Question:
    titles = {title for title, _ in item["supporting_facts"]}
    paragraphs = tuple(
        Paragraph(title, " ".join(s.strip() for s in sentences), title in titles)
        for title, sentences in item["context"]
    )
    return Question(item["_id"], item["question"], (item["answer"],), paragraphs, item.get("type", ""))


def _musique(item: dict[str, Any]) -> Question:
    paragraphs = tuple(Paragraph(p["title"], p["paragraph_text"], bool(p["is_supporting"])) for p in item["paragraphs"])
    answers = (item["answer"], *item.get("answer_aliases", []))
    return Question(item["id"], item["question"], answers, paragraphs, item["id"].split("__")[0])
