"""Judges: scores of an answer by something other than word overlap, such as a model.

A judge is any callable of this form, with a name for the report. `string_judge` makes one of a string evaluator of
LangChain (`langchain_classic.evaluation`, extra `eval`), `ragas_judge` of a metric of ragas.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from langchain_core.language_models import BaseChatModel

from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from rag_backbone.checks import suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for

Need = Literal["reference", "contexts"]
"""What a judge may be unable to do without: a correct answer, or passages that the method found."""
NEEDS: tuple[Need, ...] = get_args(Need)


@runtime_checkable
class Judge(Protocol):
    """Scores an answer; called from several threads.

    A judge may have `needs`, a collection of `"reference"` and `"contexts"`. It is not called for an answer that lacks
    one of them, and is refused before anything is asked if no question has an answer to refer to.
    """

    @property
    def name(self) -> str:
        """Name of the judge and of its model, for the report. Records of scores belong to it."""

    def __call__(self, question: str, answer: str, reference: str, contexts: Sequence[str]) -> float:
        """Return a score, higher is better.

        Args:
            question: The question.
            answer: The complete answer that a method gave.
            reference: The first correct answer; empty if none is known.
            contexts: The passages that the method found.
        """


@dataclass(frozen=True)
class StringJudge:
    """A string evaluator of LangChain as a judge."""

    name: str
    evaluator: Any
    """Has `evaluate_strings`, `requires_reference` and `requires_input`, as LangChain's `StringEvaluator`."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the evaluator cannot do without."""
        return frozenset({"reference"} if self.evaluator.requires_reference else ())

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
        raise ConfigurationError(
            f"there is no judge {name!r}{suggestion(name, known)}; known: {', '.join(known)}, and metrics of ragas, "
            "such as ragas:faithfulness"
        )
    given = {**options, **({} if model is None else {"llm": model})}
    try:
        evaluator: Any = load_evaluator(EvaluatorType(name), **given)
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigurationError(f"the judge {name!r} cannot be made: {error}") from error
    if not isinstance(evaluator, StringEvaluator):
        raise ConfigurationError(f"{name!r} is a {type(evaluator).__name__}, which does not judge single answers")
    by = f" by {model_name(model)}" if model is not None and isinstance(evaluator, LLMEvalChain) else ""
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


def check_needs(judge: object, questions: Collection[EvaluationQuestion]) -> None:
    """Refuse a judge that compares with correct answers if no question has one.

    Raises:
        ConfigurationError: If nothing could be judged.
    """
    if "reference" in needs_of(judge) and not any(q.answers for q in questions):
        raise ConfigurationError(
            f"the judge {getattr(judge, 'name', judge)} compares with a correct answer, and none of the "
            f"{len(questions)} questions has one; give the questions `answers`, or name another judge"
        )


def needs_of(judge: object) -> frozenset[Need]:
    """Return what a judge cannot do without; nothing if it does not say.

    Raises:
        ConfigurationError: If it names anything else than `"reference"` and `"contexts"`.
    """
    found = getattr(judge, "needs", ())
    if isinstance(found, str) or not isinstance(found, Collection) or not set(found) <= set(NEEDS):
        raise ConfigurationError(f"the judge's needs are {found!r}; a collection of {' and '.join(NEEDS)} is needed")
    return frozenset(found)


def model_name(model: object) -> str:
    """Return the name of a chat model or of embeddings for the report."""
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__)
