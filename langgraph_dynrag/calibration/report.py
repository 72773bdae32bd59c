"""The result of a calibration: a threshold, its uncertainty, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langgraph_dynrag.presets.file import CalibratedFor, PresetFile
from langgraph_dynrag.triggers.base import Trigger
from langgraph_dynrag.triggers.learned import LearnedTrigger

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """The rates, and with `cost` the quality, at one threshold."""

    threshold: float
    sentence_rate: float
    """Share of the judged pieces at which the trigger fires."""
    question_rate: float
    """Share of the questions with at least one such piece."""
    searches: float | None = None
    """Mean number of searches per question in real runs; None if the graph was not run at this threshold."""
    f1: float | None = None
    """Mean F1 of the short answers in real runs."""
    f1_interval: Interval | None = None
    """95 % bootstrap interval of `f1`."""


@dataclass(frozen=True, slots=True)
class LearnedFigures:
    """What a learned trigger was trained on, and its figures in cross-validation over questions."""

    kind: str
    features: tuple[str, ...]
    points: int
    """Number of labelled sentences that it was trained on."""
    needed: int
    """How many of them needed a retrieval."""
    auroc: float
    """Area under the ROC curve."""
    auroc_interval: Interval
    """95 % bootstrap interval over questions."""
    calibration_error: float
    """Expected calibration error, 10 bins."""
    probe: float | None = None
    """Depth of the probe on hidden states; None: there is none."""


@dataclass(frozen=True)
class Calibration:
    """A threshold for one trigger, model and prompt, as `calibrate` returns it.

    `str(...)` gives a readable report, and `save(path)` writes a preset file, which `create_dynamic_rag(preset=path)`
    reads.
    """

    trigger: Trigger
    """The trigger with the threshold that was found, for `create_dynamic_rag(trigger=...)`."""
    threshold: float
    interval: Interval
    """95 % interval of the threshold, by bootstrap over the questions."""
    wanted: Mapping[str, Any]
    """The goal: `{"rate", "per"}`, `{"cost"}` or `{"missed", "confidence"}`; with `given_up`, if that is bounded."""
    chosen: Point
    rate_interval: Interval
    """95 % interval of the rate (of sentences, unless `per` says otherwise) at this threshold."""
    points: tuple[Point, ...]
    """The thresholds that were examined, without duplicates."""
    questions: int
    pieces: int
    """Number of judged pieces of text, usually sentences."""
    preset: str
    dataset: str
    bundle: str
    calibrated_for: CalibratedFor
    stability: float | None = None
    """Share of bootstrap samples in which this threshold was the best one; None unless `cost` was given."""
    learned: LearnedFigures | None = None
    """Figures of a learned trigger; None for others."""

    @property
    def others(self) -> tuple[Point, ...]:
        """All points except the chosen one."""
        return tuple(p for p in self.points if p.threshold != self.threshold)

    def save(self, path: str | Path) -> Path:
        """Write a preset file, atomically, for `create_dynamic_rag(preset=...)` and `dynprag ask --preset`.

        Raises:
            ConfigurationError: If the file name does not end in `.json`, or the trigger is not from
                `langgraph_dynrag.triggers`.
        """
        found = PresetFile(
            self.preset, self.dataset, self.bundle, self.trigger, self.calibrated_for, self.to_dict()["calibration"]
        )
        return found.write(path)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data that can be serialised as JSON."""
        return {
            "preset": self.preset,
            "dataset": self.dataset,
            "bundle": self.bundle,
            "trigger": repr(self.trigger),
            "model": self.calibrated_for.model,
            "calibration": {
                "threshold": self.threshold,
                "interval": list(self.interval),
                "wanted": dict(self.wanted),
                "questions": self.questions,
                "pieces": self.pieces,
                "rate_interval": list(self.rate_interval),
                "stability": self.stability,
                "learned": None if self.learned is None else asdict(self.learned),
                "chosen": asdict(self.chosen),
                "points": [asdict(p) for p in self.others],
            },
        }

    def __str__(self) -> str:
        c = self.chosen
        low, high = self.interval
        least, most = self.rate_interval
        lines = [
            f"{self.preset} with {self.calibrated_for.model}: {self.trigger}",
            f"  threshold {self.threshold:.4g} [{low:.4g}, {high:.4g}]",
            f"  found on {self.questions} questions with {self.pieces} pieces of text",
            f"  fires at {c.sentence_rate:.0%} of the pieces, in {c.question_rate:.0%} of the questions",
            f"  rate of {self.wanted.get('per', 'sentence')}s, 95 %: {least:.0%} to {most:.0%}",
        ]
        lines += [] if self.learned is None else _learned_lines(self.learned, self.trigger)
        if c.f1 is not None and c.f1_interval is not None:
            low, high = c.f1_interval
            lines.append(
                f"  F1 {c.f1:.3f} [{low:.2f}, {high:.2f}] with {c.searches:.2f} searches per question; "
                f"best in {self.stability or 0:.0%} of the bootstrap samples"
            )
        lines += [_line(p) for p in self.others]
        return "\n".join(lines)


def _line(p: Point) -> str:
    line = f"    {p.threshold:>10.4g}: {p.sentence_rate:>4.0%} of pieces, {p.question_rate:>4.0%} of questions"
    return line if p.f1 is None else f"{line}, {p.searches:.2f} searches, F1 {p.f1:.3f}"


def _learned_lines(found: LearnedFigures, trigger: Trigger) -> list[str]:
    low, high = found.auroc_interval
    area, error = f"AUROC {found.auroc:.2f} [{low:.2f}, {high:.2f}]", f"calibration error {found.calibration_error:.2f}"
    assert isinstance(trigger, LearnedTrigger)
    since = "never" if trigger.abstain is None else f"from p {trigger.abstain:.3g} on"
    return [
        f"  {trigger.policy}",
        *([] if trigger.abstain_policy is None else [f"  gives up {since}: {trigger.abstain_policy}"]),
        f"  {found.kind}, learned on {found.points} sentences, of which {found.needed} needed a retrieval",
        f"  features: {', '.join(found.features)}",
        *([] if found.probe is None else [f"  and a probe on the hidden states after {found.probe:.0%} of the layers"]),
        f"  cross-validation: {area}, {error}",
    ]
