"""What a calibration found: a threshold with its uncertainty, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langgraph_dynrag.presets.file import CalibratedFor, PresetFile
from langgraph_dynrag.triggers.base import Trigger

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """What happens at one threshold."""

    threshold: float
    sentence_rate: float
    """Share of the judged pieces at which the trigger fires."""
    question_rate: float
    """Share of the questions with at least one."""
    searches: float | None = None
    """Mean searches of a question in real runs; None: it was not run at this threshold."""
    f1: float | None = None
    """Mean F1 of the short answers in real runs."""
    f1_interval: Interval | None = None


@dataclass(frozen=True)
class Calibration:
    """A threshold for one trigger, model and prompt. `str(...)` reads as a report."""

    trigger: Trigger
    """With the threshold that was found; `create_dynamic_rag(trigger=...)` takes it."""
    threshold: float
    interval: Interval
    """95 %, by bootstrap over the questions: thresholds that other questions of this kind would have given."""
    wanted: Mapping[str, Any]
    """`{"rate", "per"}` or `{"cost"}`."""
    chosen: Point
    rate_interval: Interval
    """95 % interval of the rate (of sentences, unless `per` says otherwise) at this threshold."""
    points: tuple[Point, ...]
    """Thresholds that were looked at, each once, with what they give."""
    questions: int
    pieces: int
    """Judged pieces of text, sentences as a rule."""
    preset: str
    dataset: str
    bundle: str
    calibrated_for: CalibratedFor
    stability: float | None = None
    """With answers: in what share of bootstrap samples this threshold was the best one."""

    @property
    def others(self) -> tuple[Point, ...]:
        """The points but the chosen one."""
        return tuple(p for p in self.points if p.threshold != self.threshold)

    def save(self, path: str | Path) -> Path:
        """Write a preset file, atomically, that `create_dynamic_rag(preset=...)` and `dynprag ask --preset` read.

        Raises:
            ConfigurationError: If its name does not end in `.json`, or the trigger is not of this package.
        """
        found = PresetFile(
            self.preset, self.dataset, self.bundle, self.trigger, self.calibrated_for, self.to_dict()["calibration"]
        )
        return found.write(path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
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
        if c.f1 is not None and c.f1_interval is not None:
            low, high = c.f1_interval
            lines.append(
                f"  F1 {c.f1:.3f} [{low:.2f}, {high:.2f}] with {c.searches:.2f} searches a question; "
                f"best in {self.stability or 0:.0%} of the bootstrap samples"
            )
        lines += [_line(p) for p in self.others]
        return "\n".join(lines)


def _line(p: Point) -> str:
    line = f"    {p.threshold:>10.4g}: {p.sentence_rate:>4.0%} of pieces, {p.question_rate:>4.0%} of questions"
    return line if p.f1 is None else f"{line}, {p.searches:.2f} searches, F1 {p.f1:.3f}"
