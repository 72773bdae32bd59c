"""Judges: scores of an answer by something other than word overlap, such as a model.

A judge is any callable of this form, with a name for the report. `string_judge` makes one of a string evaluator of
LangChain (`langchain_classic.evaluation`, extra `eval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_core.language_models import BaseChatModel

from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for


@runtime_checkable
class Judge(Protocol):
    """Scores an answer; called from several threads."""

    @property
    def name(self) -> str:
        """Name of the judge and of its model, for the report. Records of scores belong to it."""
        ...

    def __call__(self, question: str, answer: str, reference: str, contexts: Sequence[str]) -> float:
        """Return a score, higher is better.

        Args:
            question: The question.
            answer: The complete answer that a method gave.
            reference: The first correct answer; empty if none is known.
            contexts: The passages that the method found.
        """
        ...


@dataclass(frozen=True)
class StringJudge:
    """A string evaluator of LangChain as a judge."""

    name: str
    evaluator: Any
    """Has `evaluate_strings`, `requires_reference` and `requires_input`, as LangChain's `StringEvaluator`."""

    def __call__(self, question: str, answer: str, reference: str, contexts: Sequence[str]) -> float:  # noqa: ARG002
        """Return the evaluator's score.

        Raises:
            ValueError: If it needs a correct answer and there is none, or its reply holds no score.
        """
        if self.evaluator.requires_reference and not reference:
            raise ValueError(f"{self.name} compares with a correct answer, and the question has none")
        # Evaluators warn of arguments that they do not use.
        given = {"input": question} if self.evaluator.requires_input else {}
        given |= {"reference": reference} if self.evaluator.requires_reference else {}
        found = self.evaluator.evaluate_strings(prediction=answer, **given)
        score = found.get("score")
        if score is None:
            raise ValueError(f"{self.name} gave no score but {found!r}")
        return float(score)


def string_judge(name: str, model: BaseChatModel | None = None, **options: Any) -> StringJudge:
    """Return a string evaluator of LangChain as a judge, by its name, such as `"qa"` or `"exact_match"`.

    Args:
        name: One of LangChain's `EvaluatorType`.
        model: The model that judges, for evaluators that need one.
        **options: Options of the evaluator, such as `criteria`.

    Raises:
        MissingExtraError: If `langchain-classic` is not installed.
        ConfigurationError: If there is no such evaluator, or it does not judge single answers.
    """
    with needed_for(f"the judge {name!r}"):
        from langchain_classic.evaluation import EvaluatorType, StringEvaluator, load_evaluator
        from langchain_classic.evaluation.schema import LLMEvalChain
    known = [kind.value for kind in EvaluatorType]
    if name not in known:
        raise ConfigurationError(f"there is no judge {name!r}; known: {', '.join(known)}")
    given = {**options, **({} if model is None else {"llm": model})}
    try:
        evaluator: Any = load_evaluator(EvaluatorType(name), **given)
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigurationError(f"the judge {name!r} cannot be made: {error}") from error
    if not isinstance(evaluator, StringEvaluator):
        raise ConfigurationError(f"{name!r} is a {type(evaluator).__name__}, which does not judge single answers")
    by = f" by {_model_name(model)}" if model is not None and isinstance(evaluator, LLMEvalChain) else ""
    told = f" {options}" if options else ""
    return StringJudge(f"{name}{by}{told}", evaluator)


def check_judge(judge: object) -> None:
    """Refuse a judge without a name, or one that cannot be called.

    Raises:
        ConfigurationError: If it is not a `Judge`.
    """
    name = getattr(judge, "name", None)
    if not callable(judge) or not isinstance(name, str) or not name.strip():
        raise ConfigurationError(
            f"judge is {judge!r}; a callable (question, answer, reference, contexts) -> float with a `name` is needed, "
            "such as string_judge('qa', model)"
        )


def _model_name(model: BaseChatModel) -> str:
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__)
