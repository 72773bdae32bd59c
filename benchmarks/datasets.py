"""Questions with their paragraphs, in the formats of HotpotQA, 2WikiMultihopQA and MuSiQue."""

from __future__ import annotations

from pathlib import Path

from langgraph_dynrag.evaluation import question_files
from langgraph_dynrag.evaluation.questions import EvaluationQuestion as Question
from langgraph_dynrag.evaluation.questions import Paragraph, corpus, sample
from rag_backbone.errors import ConfigurationError

__all__ = ["Paragraph", "Question", "corpus", "load_questions", "sample"]


def load_questions(path: Path) -> list[Question]:
    """Read a file in any of the formats, which is detected from its fields.

    Raises:
        ConfigurationError: If the file is missing, empty or of another format, or a question has no paragraphs.
    """
    found = question_files.load_questions(path)
    if bare := next((q for q in found if not q.paragraphs), None):
        raise ConfigurationError(f"{path}: the question {bare.text!r} has no paragraphs, which a benchmark searches")
    return found
