"""Estimate how long training adapters takes: the work for each passage, times this machine's pace.

    questions    0 by rule; otherwise the replies' tokens, of which only the bounds are known
    teacher      the same for each passage, with `distill`
    training     tokens of all sequences, which grow with the passage if it is in the prompt

The estimate comes with a range: the error that estimates of short jobs had on an otherwise idle machine. The range is
wide if a model writes the questions, until a job has shown how much it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.jobs.pace import Pace
from llamaindex_prag.progress import JobStage, duration

if TYPE_CHECKING:
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.augment.choice import DocumentAugmenter

_LOW, _HIGH = 0.7, 1.5
_QUESTIONS_A_TOKEN = 1.3
"""Questions that the rules find per token of a short passage, before `phrases` limits them."""
_LEAST_REPLY = 96
_GUESSED = 3.0
"""Assumed seconds per reply of a server."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated duration of a job."""

    documents: int
    """Number of documents that need an adapter."""
    known: int
    """Number of documents that already have one, which cost nothing."""
    seconds: float
    low: float
    high: float
    unknown: str = ""
    """The part that is only guessed, because it cannot be measured here; empty if there is none."""
    stages: Mapping[str, Mapping[JobStage, float]] = field(default_factory=dict, repr=False)
    """Seconds of each stage, by text hash."""

    @property
    def by_stage(self) -> dict[JobStage, float]:
        """Seconds of each stage, summed over all documents."""
        found: dict[JobStage, float] = {}
        for stages in self.stages.values():
            for stage, seconds in stages.items():
                found[stage] = found.get(stage, 0.0) + seconds
        return found

    def shared_by(self, workers: int) -> Estimate:
        """Return the estimate of the same job for this many equal workers, if there is enough work for all of them."""
        stages: dict[str, Mapping[JobStage, float]] = {
            digest: {stage: seconds / workers for stage, seconds in own.items()} for digest, own in self.stages.items()
        }
        return replace(
            self, seconds=self.seconds / workers, low=self.low / workers, high=self.high / workers, stages=stages
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON-serialisable data, without the individual documents."""
        return {k: v for k, v in asdict(self).items() if k != "stages"} | {"by_stage": self.by_stage}

    def __str__(self) -> str:
        counted = f"{self.documents} document{'s' * (self.documents != 1)}"
        known = f"; {self.known} already trained" if self.known else ""
        if not self.documents:
            return f"nothing to train{known}"
        told = f"about {duration(self.seconds)} for {counted} ({duration(self.low)} to {duration(self.high)})"
        return told + (f", {self.unknown} is a guess" if self.unknown else "") + known


def estimated(
    recipe: Recipe, tokens: Mapping[str, int], known: int, pace: Pace, augmenter: DocumentAugmenter
) -> Estimate:
    """Estimate a job.

    Args:
        recipe: The recipe that trains the adapters.
        tokens: Number of tokens of each passage without an adapter, by text hash.
        known: Number of passages that already have an adapter.
        pace: This machine's pace.
        augmenter: Generates the questions.
    """
    stages: dict[str, Mapping[JobStage, float]] = {}
    low = high = 0.0
    for digest, n in tokens.items():
        least, likely, most = _writing(augmenter, pace, n) if recipe.questions else (0.0, 0.0, 0.0)
        found: dict[JobStage, float] = {
            "questions": likely,
            "teacher": pace.teach,
            "training": pace.train * _trained_tokens(recipe, n, pace),
        }
        stages[digest] = found
        made = found["teacher"] + found["training"]
        low, high = low + _LOW * made + least, high + _HIGH * made + most
    seconds = sum(sum(s.values()) for s in stages.values())
    unknown = f"the time that {augmenter!r} takes to write questions" if pace.write is None else ""
    return Estimate(len(tokens), known, seconds, low, high, unknown, stages)


def _trained_tokens(recipe: Recipe, passage: int, pace: Pace) -> float:
    """Return the number of tokens of a passage's training sequences."""
    if recipe.objective == "next_token":
        sequences, with_passage = (5, 4) if recipe.augmentation != "rules" else (3, 2)
    else:
        by_rule = min(recipe.phrases, round(_QUESTIONS_A_TOKEN * passage))
        asked = by_rule + recipe.questions
        with_passage = min(recipe.with_passage, asked)
        sequences = asked + recipe.unrelated + recipe.silence + with_passage
    return sequences * pace.sequence + with_passage * passage


def _writing(augmenter: DocumentAugmenter, pace: Pace, passage: int) -> tuple[float, float, float]:
    """Return the minimum, likely and maximum seconds for writing a passage's questions."""
    if pace.write is None:
        guess = _GUESSED * getattr(augmenter, "prompts", 4) / getattr(augmenter, "concurrency", 1)
        return guess / 4, guess, 4 * guess
    if not isinstance(augmenter, Augmenter):
        return 0.0, 0.0, 0.0
    first, every = augmenter.tokens
    likely = min(max(first // 2, passage), first)
    if pace.jobs:  # the pace already reflects the actual length of replies
        return _LOW * likely * pace.write, likely * pace.write, _HIGH * likely * pace.write
    return min(_LEAST_REPLY, first) * pace.write, likely * pace.write, every * pace.write
