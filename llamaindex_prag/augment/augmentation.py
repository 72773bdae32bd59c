"""The result of augmenting a document: questions with answers, and a rewrite of the document.

Plain data that can be stored as JSON, so that augmentations from elsewhere can be passed in. Knows neither models nor
prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from rag_backbone.errors import ConfigurationError

QuestionSource = Literal["model", "cloze", "given", "passage"]
"""Origin of a question: a language model, the cloze rules, the user, or none (the passage itself is the answer)."""


@dataclass(frozen=True, slots=True)
class QA:
    """A question about a document, and its answer.

    Adapters are trained to answer such questions without the document in the prompt.
    """

    question: str
    answer: str
    full_answer: str = ""
    """The answer as a sentence, which PRAG trains on in addition to the short one; may be empty."""
    style: str = ""
    """The requested question style."""
    source: QuestionSource = "given"
    answer_grounded: bool = True
    """Whether the answer's content words occur in the document. If False, the question can still be used for
    distillation, where the model with the document in its context answers, but the answer must not be taught."""

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            if not getattr(self, name).strip():
                raise ConfigurationError(f"the {name} of {self!r} is blank; a question with its answer is needed")
        if self.source not in get_args(QuestionSource):
            raise ConfigurationError(f"source is {self.source!r}; known: {', '.join(get_args(QuestionSource))}")

    def to_dict(self) -> dict[str, Any]:
        """Return the question as JSON-serialisable data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build a question from plain data; only `question` and `answer` are required.

        Raises:
            ConfigurationError: If a key is missing or unknown, or a value has another type.
        """
        _check_keys(data, cls, {"question", "answer"}, 'a question, {"question": "...", "answer": "..."}')
        for name, value in data.items():
            wanted = bool if name == "answer_grounded" else str
            if not isinstance(value, wanted):
                raise ConfigurationError(f"{name} of a question is {value!r}; it must be a {wanted.__name__}")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A document's questions and its rewrite.

    Args:
        rewrite: The document in other words; None if there is no rewrite.
        qas: At least one question.
        notes: Messages about what did not go as planned: parse failures, fallbacks.
    """

    rewrite: str | None
    qas: tuple[QA, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.qas:
            raise ConfigurationError("an augmentation needs at least one question with its answer; qas is empty")
        if self.rewrite is not None and not self.rewrite.strip():
            raise ConfigurationError("rewrite is blank; give a text, or None if there is no rewrite")

    @property
    def sources(self) -> dict[QuestionSource, int]:
        """Number of questions from each source."""
        return dict(Counter(qa.source for qa in self.qas))

    @property
    def grounded(self) -> tuple[QA, ...]:
        """The questions whose answers may be taught because the document supports them."""
        return tuple(qa for qa in self.qas if qa.answer_grounded)

    def to_dict(self) -> dict[str, Any]:
        """Return the augmentation as JSON-serialisable data."""
        return {"rewrite": self.rewrite, "qas": [qa.to_dict() for qa in self.qas], "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build an augmentation from plain data; only `qas` is required.

        Raises:
            ConfigurationError: If the data do not describe an augmentation.
        """
        _check_keys(data, cls, {"qas"}, 'an augmentation, {"rewrite": null, "qas": [...]}')
        rewrite, qas, notes = data.get("rewrite"), data["qas"], data.get("notes", ())
        if not (rewrite is None or isinstance(rewrite, str)):
            raise ConfigurationError(f"rewrite is {rewrite!r}; it must be a text or null")
        if not isinstance(qas, list | tuple):
            raise ConfigurationError(f"qas is {qas!r}; it must be a list of questions with answers")
        if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
            raise ConfigurationError(f"notes is {notes!r}; it must be a list of texts")
        return cls(rewrite, tuple(QA.from_dict(qa) for qa in qas), tuple(notes))


def refuse_blank(title: str, text: str) -> None:
    """Refuse a document without text.

    Raises:
        ConfigurationError: If the text is blank.
    """
    if not text.strip():
        raise ConfigurationError(f"the text of document {title!r} is blank; there is nothing to ask questions about")


def _check_keys(data: Any, kind: type[QA] | type[Augmentation], needed: set[str], example: str) -> None:
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{data!r} is not {example}")
    known = [f.name for f in fields(kind)]
    if missing := sorted(needed - set(data)):
        raise ConfigurationError(f"{', '.join(missing)} is missing from {dict(data)!r}; expected {example}")
    if unknown := sorted(str(key) for key in set(data) - set(known)):
        raise ConfigurationError(f"{', '.join(unknown)} is unknown in {example}; known: {', '.join(known)}")
