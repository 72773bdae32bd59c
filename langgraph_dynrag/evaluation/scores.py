"""From records to a table: means with intervals for each method, and paired differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_dynrag.evaluation.bootstrap import interval, mean
from rag_backbone.metrics import normalised_answer

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that a method could not answer: its scores are 0, and its cost is not known."""

    message: str
    scored: bool
    """Whether the question has correct answers."""
    supported: bool
    """Whether its supporting passages are known."""


Result = Record | Failure


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean over questions, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None], seed: int) -> Measure | None:
        """Return the mean of the values that are known; None if none is."""
        known = [float(v) for v in values if v is not None]
        return cls(mean(known), *interval(known, seed=seed)) if known else None

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one method. A question that failed has scores of 0, and no cost."""

    method: str
    questions: int = 0
    scored: int = 0
    """Number of questions with correct answers, which the scores are about."""
    em: Measure | None = None
    """Exact match; None without correct answers, like `f1` and `contains`."""
    f1: Measure | None = None
    contains: Measure | None = None
    """Share of the answers that contain a correct one."""
    recall: Measure | None = None
    """Share of the supporting passages that were found; None if they are not known."""
    judged: Measure | None = None
    """Score of the judge; None without one."""
    searches: Measure | None = None
    read_tokens: Measure | None = None
    """Tokens of all prompts, whether they were cached or not."""
    written_tokens: Measure | None = None
    """Generated tokens, discarded and sampled ones included."""
    seconds: Measure | None = None
    failures: int = 0
    """Number of questions that failed, or in which a search failed."""
    first_failure: str | None = None
    problem: str | None = None
    """Why the model cannot run the method; None if it can."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A method less a baseline, paired by question, so that the difficulty of the questions cancels out."""

    method: str
    baseline: str
    questions: int
    f1: Measure | None
    differing: int
    """Number of questions whose F1 differs."""
    same_answers: int
    """Number of questions with the same short answer, apart from case, articles and punctuation."""
    searches: Measure | None
    tokens: Measure | None
    """Difference in tokens, read and written."""


def row_of(method: str, results: Sequence[Result], judged: Sequence[float | None], seed: int) -> Row:
    """Return the results of a method as a row.

    Args:
        method: Its name.
        results: One for each question.
        judged: The judge's score of each answer, or None.
        seed: Seed of the bootstrap.
    """
    problems = [message for r in results if (message := _problem(r))]

    def measured(name: str) -> Measure | None:
        return Measure.of([score(r, name) for r in results], seed)

    def cost(*names: str) -> Measure | None:
        return Measure.of([_cost(r, names) for r in results], seed)

    return Row(
        method,
        len(results),
        sum(1 for r in results if score(r, "f1") is not None),
        em=measured("em"),
        f1=measured("f1"),
        contains=measured("contains"),
        recall=measured("recall"),
        judged=Measure.of(judged, seed),
        searches=cost("retrievals"),
        read_tokens=cost("read_tokens"),
        written_tokens=cost("generated_tokens", "sampled_tokens"),
        seconds=cost("seconds"),
        failures=len(problems),
        first_failure=problems[0] if problems else None,
    )


def difference_of(
    method: str, results: Sequence[Result], baseline: str, others: Sequence[Result], seed: int
) -> Difference:
    """Return a method's results less those of a baseline on the same questions, in the same order."""
    pairs = list(zip(results, others, strict=True))
    gains = [_less(score(a, "f1"), score(b, "f1")) for a, b in pairs]
    tokens = ("read_tokens", "generated_tokens", "sampled_tokens")
    return Difference(
        method,
        baseline,
        len(pairs),
        f1=Measure.of(gains, seed),
        differing=sum(1 for g in gains if g),
        same_answers=sum(1 for a, b in pairs if _short(a) is not None and _short(a) == _short(b)),
        searches=Measure.of([_less(_cost(a, ("retrievals",)), _cost(b, ("retrievals",))) for a, b in pairs], seed),
        tokens=Measure.of([_less(_cost(a, tokens), _cost(b, tokens)) for a, b in pairs], seed),
    )


def score(result: Result, name: str) -> float | None:
    """Return a score of a result: `em`, `f1`, `contains` or `recall`; None if it is not known."""
    if isinstance(result, Failure):
        return 0.0 if (result.supported if name == "recall" else result.scored) else None
    value = result.get(name)
    return None if value is None else float(value)


def _cost(result: Result, names: Sequence[str]) -> float | None:
    return None if isinstance(result, Failure) else float(sum(result.get(name) or 0 for name in names))


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _short(result: Result) -> str | None:
    return None if isinstance(result, Failure) else normalised_answer(result["short_answer"])


def _problem(result: Result) -> str | None:
    if isinstance(result, Failure):
        return result.message
    return f"a search failed: {result['search_error']}" if result.get("failed_searches") else None
