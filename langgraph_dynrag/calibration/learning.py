"""`calibrate(..., trigger="learned")`: train a learned trigger from the user's questions and choose its threshold.

`docs/results-triggers.md` reports how well such triggers do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from langgraph_dynrag.calibration.bounds import abstain_threshold, missed_rank, missed_threshold, refuse_too_few
from langgraph_dynrag.calibration.folds import TooFewPointsError
from langgraph_dynrag.calibration.points import PointRecorder, features_for, label_points, refuse_unanswered
from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.calibration.report import Calibration, LearnedFigures, Point
from langgraph_dynrag.calibration.thresholds import Curve, Values, interval
from langgraph_dynrag.calibration.training import LabelledPoint, Trained, train
from langgraph_dynrag.presets.file import CalibratedFor
from langgraph_dynrag.presets.methods import Preset
from langgraph_dynrag.retrieval.retriever import Retriever
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.triggers.learned import LearnedTrigger
from langgraph_dynrag.triggers.learned_model import ModelKind
from langgraph_dynrag.triggers.policy import Policy
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.extras import needed_for

logger = logging.getLogger(__name__)

_SHOWN = (0.1, 0.25, 0.5, 0.75, 0.9)
HELD_OUT = 1 / 3
"""Share of the questions that a bound rests on, and that the model is not trained on."""

Built = tuple[Any, Settings]
"""A graph and its settings."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the thresholds of a learned trigger are chosen for.

    Args:
        rate: Share of the sentences that search; give either this or `missed`.
        missed: Share of the needed retrievals that may be missed.
        confidence: Confidence of the bounds.
        given_up: Share of the right sentences that the trigger may give up; None: it never gives up.

    Raises:
        ConfigurationError: If none or both are given, or one is out of range.
    """

    rate: float | None
    missed: float | None
    confidence: float = 0.9
    given_up: float | None = None

    def __post_init__(self) -> None:
        if (self.rate is None) is (self.missed is None):
            given = "neither" if self.rate is None else "both"
            raise ConfigurationError(
                f"{given} of rate and missed were given; with trigger='learned', pass exactly one: rate=0.3 (a share "
                "of the sentences), or missed=0.1 (a share of the needed retrievals)"
            )
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ConfigurationError(f"rate is {self.rate}; a share from 0 to 1 is needed")
        for name, value in (("missed", self.missed), ("confidence", self.confidence), ("given_up", self.given_up)):
            if value is not None and not 0 < value < 1:
                raise ConfigurationError(f"{name} is {value}; a number above 0 and below 1 is needed")

    @property
    def wanted(self) -> dict[str, Any]:
        """The goal as a report states it."""
        found: dict[str, Any] = (
            {"rate": self.rate, "per": "sentence"} if self.missed is None else {"missed": self.missed}
        )
        found |= {} if self.given_up is None else {"given_up": self.given_up}
        return found | ({"confidence": self.confidence} if self.bounded else {})

    @property
    def bounded(self) -> bool:
        """Whether there is a bound, for which questions are held out."""
        return self.missed is not None or self.given_up is not None


def calibrate_learned(
    build: Callable[[PointRecorder], Built],
    retriever: Retriever | None,
    *,
    questions: Sequence[CalibrationQuestion],
    goal: Goal,
    kind: ModelKind,
    preset: Preset,
    calibrated_for: Callable[[], CalibratedFor],
    samples: int,
    seed: int,
    probe: bool,
    shown: Callable[[Sequence[Any], str], Iterable[Any]],
) -> Calibration:
    """Label the sentences of drafts, train a model on them, and choose its threshold.

    Args:
        build: Builds the graph with a trigger.
        retriever: The retriever of the graph.
        questions: The questions, with answers.
        goal: What the threshold is chosen for.
        kind: Logistic regression, or trees.
        preset: The published method.
        calibrated_for: Describes model and prompt.
        samples: Number of bootstrap samples.
        seed: Seed of the training, of the questions held out, and of the bootstrap.
        probe: Whether to train a probe on hidden states as well.
        shown: Shows progress through a sequence.

    Raises:
        ConfigurationError: If a question has no answer, there is no retriever, or the method has no single draft.
        MissingExtraError: If scikit-learn is not installed.
        TooFewPointsError: If the questions give too few sentences to learn from, or for the bound.
    """
    with needed_for("a learned trigger"):
        import sklearn  # noqa: F401 - before anything is drafted
    if retriever is None:
        raise ConfigurationError("a learned trigger is trained on what passages change; pass the retriever")
    if preset.settings.get("selection") is not None:
        raise ConfigurationError(
            f"{preset.name} writes one continuation for each passage, and a learned trigger judges a single draft; "
            "use preset='flare'"
        )
    refuse_unanswered(questions)
    for name, share in (("missed", goal.missed), ("given_up", goal.given_up)):
        if share is not None:  # more questions than these cannot be held out
            refuse_too_few(name, share, goal.confidence, _held_out(len(questions)))
    (graph, settings), recorder = _built(build, retriever, probe=probe)
    points = label_points(graph, settings, recorder, shown(questions, "sentences"))
    trained, trigger, thresholds, curve = _chosen(points, recorder.features, goal, kind, samples, seed)
    at = _just_below(trigger.threshold)  # a curve fires above a threshold, the trigger from it on
    return Calibration(
        trigger=trigger,
        threshold=trigger.threshold,
        interval=interval(thresholds),
        wanted=goal.wanted,
        chosen=_point(curve, trigger.threshold, at),
        rate_interval=curve.rate_interval(at, "sentence", samples=samples, seed=seed),
        points=tuple(dict.fromkeys(_point(curve, t, t) for t in (_rate_threshold(curve, r) for r in _SHOWN))),
        questions=len(questions),
        pieces=len(points),
        preset=preset.name,
        dataset=preset.dataset,
        bundle=preset.bundle,
        calibrated_for=calibrated_for(),
        learned=LearnedFigures(
            trained.model.kind,
            trained.model.features,
            trained.points,
            trained.needed,
            trained.auroc,
            trained.auroc_interval,
            trained.calibration_error,
            None if trained.model.probe is None else trained.model.probe.depth,
        ),
    )


def _built(
    build: Callable[[PointRecorder], Built], retriever: Retriever, *, probe: bool
) -> tuple[Built, PointRecorder]:
    """Build the graph with all features, or with those that need no entropy if the model does not report it."""
    recorder = PointRecorder(features_for(retriever, frozenset({"logprob", "entropy"})), probe=probe)
    try:
        return build(recorder), recorder
    except SignalUnavailableError:
        if probe:
            raise
        recorder = PointRecorder(features_for(retriever, frozenset({"logprob"})))
        built = build(recorder)
        logger.warning("the model does not report entropies; the trigger is learned without them")
        return built, recorder


def _chosen(
    points: Sequence[LabelledPoint], features: Sequence[str], goal: Goal, kind: ModelKind, samples: int, seed: int
) -> tuple[Trained, LearnedTrigger, Values, Curve]:
    """Train the model and choose the thresholds.

    Returns:
        The model with its figures, the trigger, bootstrapped thresholds (samples,), and the probabilities that the
        threshold was chosen on, as a curve.
    """
    learning, held_out = split(points, HELD_OUT, seed) if goal.bounded else (list(points), [])
    trained = train(learning, features, kind=kind, seed=seed)
    model = trained.model
    p = [model.probability(h.inputs(model)) for h in held_out]
    if goal.missed is None:
        assert goal.rate is not None
        curve = _curve(learning, trained.probabilities)
        policy = Policy("rate", goal.rate, points=len(learning))
        trigger = LearnedTrigger(model, _rate_threshold(curve, goal.rate), policy)
        spread = curve.bootstrap(goal.rate, "sentence", samples=samples, seed=seed).clip(0, 1)
    else:
        curve = _curve(held_out, p)
        needed = one_per_question(held_out, p, [h.needed for h in held_out], seed)
        policy = Policy("missed", goal.missed, goal.confidence, len(needed))
        trigger = LearnedTrigger(model, missed_threshold(needed, goal.missed, goal.confidence), policy)
        k = missed_rank(len(needed), goal.missed, goal.confidence)
        drawn = np.random.default_rng(seed).integers(0, len(needed), (samples, len(needed)))
        spread = np.sort(np.asarray(needed)[drawn], 1)[:, k - 1]
    if goal.given_up is not None:
        right = one_per_question(held_out, p, [h.right_with_passages for h in held_out], seed)
        policy = Policy("given_up", goal.given_up, goal.confidence, len(right))
        lowest = max(abstain_threshold(right, goal.given_up, goal.confidence), trigger.threshold)
        trigger = replace(trigger, abstain=lowest if lowest <= 1 else None, abstain_policy=policy)
    return trained, trigger, spread, curve


def split(points: Sequence[LabelledPoint], share: float, seed: int) -> tuple[list[LabelledPoint], list[LabelledPoint]]:
    """Return the points to learn from, and those of a share of the questions, drawn at random, that are held out.

    Raises:
        TooFewPointsError: If there are fewer than two questions.
    """
    known = sorted({p.question for p in points})
    if len(known) < 2:
        raise TooFewPointsError(f"{len(known)} questions have labelled sentences; a bound holds some out: give more")
    drawn = set(np.random.default_rng(seed).permutation(known)[: _held_out(len(known), share)].tolist())
    return [p for p in points if p.question not in drawn], [p for p in points if p.question in drawn]


def _held_out(questions: int, share: float = HELD_OUT) -> int:
    return max(1, round(share * questions))


def one_per_question(
    points: Sequence[LabelledPoint], probabilities: Sequence[float], wanted: Sequence[bool], seed: int
) -> list[float]:
    """Return the probability at one wanted point, drawn at random, of each question that has any.

    Points of one question are alike, and the bound takes points that are independent.
    """
    by_question: dict[int, list[float]] = {}
    for point, p, counts in zip(points, probabilities, wanted, strict=True):
        if counts:
            by_question.setdefault(point.question, []).append(p)
    rng = np.random.default_rng(seed)
    return [values[rng.integers(len(values))] for values in by_question.values()]


def _curve(points: Sequence[LabelledPoint], probabilities: Sequence[float]) -> Curve:
    """Return how often a threshold fires on probabilities; a piece fires below its own one."""
    by_question: dict[int, list[float]] = {}
    for point, p in zip(points, probabilities, strict=True):
        by_question.setdefault(point.question, []).append(-p)
    return Curve(tuple(np.asarray(values) for values in by_question.values()), -1)


def _rate_threshold(curve: Curve, rate: float) -> float:
    found = curve.threshold(rate, "sentence", lambda value: 0 <= value <= 1)
    return min(max(found, 0.0), 1.0)


def _just_below(threshold: float) -> float:
    return math.nextafter(threshold, -math.inf)


def _point(curve: Curve, threshold: float, at: float) -> Point:
    return Point(threshold, curve.rate(at, "sentence"), curve.rate(at, "question"))
