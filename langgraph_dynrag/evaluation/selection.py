"""Which questions are asked: read, without duplicates, and at most as many as wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.evaluation.question_files import load_questions
from langgraph_dynrag.evaluation.questions import EvaluationQuestion, corpus, distinct, sample
from rag_backbone.errors import ConfigurationError

QuestionLike = EvaluationQuestion | CalibrationQuestion | str | Mapping[str, Any]


@dataclass(frozen=True)
class Selection:
    """The questions of an evaluation."""

    chosen: tuple[EvaluationQuestion, ...]
    """The questions to ask."""
    everything: tuple[EvaluationQuestion, ...]
    """All questions that were given, whose paragraphs are the corpus if there is no retriever."""
    repeated: tuple[str, ...]
    """Texts of the questions that were dropped because an earlier one asks the same."""

    @classmethod
    def of(cls, questions: str | Path | Iterable[QuestionLike], limit: int | None, seed: int) -> Selection:
        """Read the questions, drop duplicates, and draw a sample if there are more than `limit`.

        Raises:
            ConfigurationError: If there are none, or one is invalid.
        """
        if isinstance(questions, str | Path):
            given = load_questions(questions)
        elif isinstance(questions, Mapping):
            raise ConfigurationError("questions is one mapping; a list of questions is needed: [{'question': ...}]")
        else:
            given = [EvaluationQuestion.of(q, f"question {i}: ") for i, q in enumerate(questions, 1)]
        if not given:
            raise ConfigurationError("there are no questions; a few dozen are needed")
        unlike, repeated = distinct(given)
        chosen = unlike if limit is None else sample(unlike, limit, seed)
        return cls(tuple(chosen), tuple(given), tuple(repeated))

    def own_corpus(self) -> list[Document]:
        """Return the paragraphs of all questions.

        Raises:
            ConfigurationError: If a question has none, so that nothing could be found for it.
        """
        bare = next((q for q in self.chosen if not q.paragraphs), None)
        if bare is not None:
            raise ConfigurationError(
                f"there is no retriever, and the question {bare.text!r} comes without paragraphs; pass a retriever, or "
                "a file of HotpotQA, 2WikiMultihopQA, MuSiQue or SQuAD"
            )
        return corpus(self.everything)

    def in_another_corpus(self) -> Selection:
        """Return the same questions with their supporting passages named by title."""
        return Selection(tuple(q.by_title() for q in self.chosen), self.everything, self.repeated)
