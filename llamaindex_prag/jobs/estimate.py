"""How long making adapters will take: what has to be done for each passage, times this machine's pace.

    questions    0 by rule; else the replies' tokens, of which only the bounds are known
    teacher      the same for each passage, with `distill`
    training     tokens of all sequences, which grow with the passage where it stands in the prompt

A range is told with the figure. It is what estimates of short jobs missed by on a machine with nothing else to do, and
wide where a model writes, until a job has shown how much it does write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.jobs.pace import Pace
from llamaindex_prag.progress import JobStage, duration

if TYPE_CHECKING:
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.augment.choice import DocumentAugmenter

_LOW, _HIGH = 0.7, 1.5
_QUESTIONS_A_TOKEN = 1.3
"""That the rules find in a short passage, before `phrases` limits them."""
_LEAST_REPLY = 96
_GUESSED = 3.0
"""Seconds that a server takes for a reply."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a job will take."""

    documents: int
    """That have to be made."""
    known: int
    """That are there already, and cost nothing."""
    seconds: float
    low: float
    high: float
    unknown: str = ""
    """What is only guessed, because nothing here tells how long it takes."""
    stages: Mapping[str, Mapping[JobStage, float]] = field(default_factory=dict, repr=False)
    """By text hash, the seconds of each stage."""

    @property
    def by_stage(self) -> dict[JobStage, float]:
        """Seconds of all documents by stage."""
        found: dict[JobStage, float] = {}
        for stages in self.stages.values():
            for stage, seconds in stages.items():
                found[stage] = found.get(stage, 0.0) + seconds
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain data, without the single documents."""
        return {k: v for k, v in asdict(self).items() if k != "stages"} | {"by_stage": self.by_stage}

    def __str__(self) -> str:
        counted = f"{self.documents} document{'s' * (self.documents != 1)}"
        known = f"; {self.known} known already" if self.known else ""
        if not self.documents:
            return f"nothing to make{known}"
        told = f"about {duration(self.seconds)} for {counted} ({duration(self.low)} to {duration(self.high)})"
        return told + (f", {self.unknown} being a guess" if self.unknown else "") + known


def estimated(
    recipe: Recipe, tokens: Mapping[str, int], known: int, pace: Pace, augmenter: DocumentAugmenter
) -> Estimate:
    """The estimate of a job.

    Args:
        recipe: By which adapters are made.
        tokens: Of each passage to be made, by text hash.
        known: How many are there already.
        pace: Of this machine.
        augmenter: Who asks the questions.
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
    unknown = f"what {augmenter!r} takes to write questions" if pace.write is None else ""
    return Estimate(len(tokens), known, seconds, low, high, unknown, stages)


def _trained_tokens(recipe: Recipe, passage: int, pace: Pace) -> float:
    """Tokens of a passage's sequences."""
    if recipe.objective == "next_token":
        sequences, with_passage = (5, 4) if recipe.augmentation != "rules" else (3, 2)
    else:
        by_rule = min(recipe.phrases, round(_QUESTIONS_A_TOKEN * passage))
        asked = by_rule + recipe.questions
        with_passage = min(recipe.with_passage, asked)
        sequences = asked + recipe.unrelated + with_passage
    return sequences * pace.sequence + with_passage * passage


def _writing(augmenter: DocumentAugmenter, pace: Pace, passage: int) -> tuple[float, float, float]:
    """Seconds of a passage's questions at least, likely, and at most."""
    if pace.write is None:
        guess = _GUESSED * getattr(augmenter, "prompts", 4)
        return guess / 4, guess, 4 * guess
    if not isinstance(augmenter, Augmenter):
        return 0.0, 0.0, 0.0
    first, every = augmenter.tokens
    likely = min(max(first // 2, passage), first)
    if pace.jobs:  # what replies have come to is in the pace
        return _LOW * likely * pace.write, likely * pace.write, _HIGH * likely * pace.write
    return min(_LEAST_REPLY, first) * pace.write, likely * pace.write, every * pace.write
