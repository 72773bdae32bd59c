"""`calibrate`: find the threshold that gives a wanted retrieval rate, or the best F1 within a search budget.

Published thresholds belong to a model, a prompt and a form of the formula. What carries over to another model is the
goal: how often to search, or the best quality at a given cost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack, get_args

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from langgraph_dynrag.calibration.learning import Goal, calibrate_learned
from langgraph_dynrag.calibration.questions import CalibrationQuestion, all_asked
from langgraph_dynrag.calibration.recorder import Drafted, Recorder, answered, write_drafts
from langgraph_dynrag.calibration.report import Calibration, Point
from langgraph_dynrag.calibration.thresholds import Curve, Per, Values, check, interval
from langgraph_dynrag.generators.wrapped_models import ChatModelLike
from langgraph_dynrag.graph import create_dynamic_rag, create_nodes
from langgraph_dynrag.options import OtherOptions, refuse_unknown_options
from langgraph_dynrag.presets.file import belonging, is_preset_file
from langgraph_dynrag.presets.methods import Preset, as_preset
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.retrieval.retriever import Retriever
from langgraph_dynrag.triggers.base import Trigger
from langgraph_dynrag.triggers.learned_model import ModelKind
from langgraph_dynrag.triggers.threshold import threshold_of, with_threshold
from rag_backbone.errors import ConfigurationError
from rag_backbone.metrics import f1

logger = logging.getLogger(__name__)

_FEW = 20
_SHOWN = (0.1, 0.25, 0.5, 0.75, 0.9)


def calibrate(
    model: ChatModelLike,
    retriever: Retriever | None = None,
    *,
    questions: Iterable[CalibrationQuestion | str | Mapping[str, Any]],
    rate: float | None = None,
    per: Per = "sentence",
    cost: float | None = None,
    missed: float | None = None,
    confidence: float = 0.9,
    given_up: float | None = None,
    preset: str | Preset = "flare",
    trigger: Trigger | Literal["learned"] | None = None,
    learner: ModelKind = "logistic",
    probe: bool = False,
    points: int = 5,
    samples: int = 1000,
    bootstrap_seed: int = 0,
    progress: bool = False,
    **options: Unpack[OtherOptions],
) -> Calibration:
    """Find the threshold of a trigger for a model.

    Each question is answered once, by the real graph, without acting on the trigger. From the recorded scores it then
    follows what the trigger would have decided at any threshold, without generating anything again. In a real run, text
    after a search is written with evidence, and the model may be surer of it than here: the rate is that of drafts
    without evidence.

    With `cost`, the graph also runs at `points` thresholds, spread evenly over the rates, on those questions for which
    the trigger fires there. Of the thresholds that need at most `cost` searches per question, the one with the best
    mean F1 wins.

    With `trigger="learned"`, a trigger is trained on these questions, which need answers: see
    `langgraph_dynrag.calibration.points` for its labels.

    Args:
        model: As for `create_dynamic_rag`.
        retriever: As for `create_dynamic_rag`; without `cost`, only methods that begin with a search need one.
        questions: A few dozen questions, as strings or as mappings with `question` and `answers`; see also
            `read_questions`.
        rate: Wanted share, from 0 to 1, of the pieces at which the trigger fires (`per="sentence"`), or of the
            questions in which it does (`per="question"`). Give either this or `cost`.
        per: What the rate is a share of.
        cost: Maximum mean number of searches per question. The questions need answers.
        missed: With `trigger="learned"`, instead of a rate: the share of the needed retrievals that may be missed. A
            third of the questions is held out for the bound, which is that of `langgraph_dynrag.calibration.bounds`.
        confidence: Confidence of the bounds.
        given_up: With `trigger="learned"`, the share of the right sentences that it may give up: `abstain` becomes the
            lowest probability for which this bound holds. It rests on the questions held out, too.
        preset: The name of a published method, or what `get_preset` returns.
        trigger: The trigger to calibrate, which must have a `threshold` (see `triggers.threshold`); None: the
            preset's. `"learned"` trains one, with scikit-learn (extra `learned`).
        learner: What is trained for `trigger="learned"`: logistic regression, or small gradient-boosted trees.
        probe: With `trigger="learned"`, whether to train a probe on the model's hidden states as one more input; only
            for `LocalChatModel`. It reads each sentence once more, and added little where it was measured
            (docs/results-triggers.md).
        points: Number of thresholds at which the graph runs, with `cost`.
        samples: Number of bootstrap samples.
        bootstrap_seed: Seed of the bootstrap.
        progress: Whether to show a progress bar.
        **options: As for `create_dynamic_rag`. The threshold found is only valid with the `prompt`.

    Raises:
        ConfigurationError: If an option is out of range, a question is invalid, the trigger has no threshold, or no
            threshold makes a difference on these questions.
        TooFewPointsError: If a trigger is to be learned, and the questions give too few sentences for it.
        SignalUnavailableError: If the model cannot provide the signals that the trigger needs.

    Example:
        >>> found = calibrate(LocalChatModel(), retriever, questions=questions, rate=0.3)  # doctest: +SKIP
        >>> found.save("flare-smollm.json")  # doctest: +SKIP
        >>> graph = create_dynamic_rag(LocalChatModel(), retriever, preset="flare-smollm.json")  # doctest: +SKIP
    """
    refuse_unknown_options(options, "calibrate", _PARAMETERS)
    asked = all_asked(questions)
    if probe and trigger != "learned":
        raise ConfigurationError("probe=True is an input of a learned trigger; pass trigger='learned' as well")
    goal = _learned_goal(trigger, rate, per, cost, missed, confidence, given_up, learner)
    if goal is None:
        _check_options(rate, per, cost, asked)
    _check_counts(points, samples, asked)
    if not isinstance(preset, Preset) and is_preset_file(preset):
        raise ConfigurationError(f"preset is the file {preset}; calibrate starts from a published method, by its name")
    chosen = as_preset(preset)
    others: Any = dict(options)
    prompt = others.pop("prompt", None) or reasoned_prompt(chosen.exemplars)
    if goal is not None:
        return calibrate_learned(
            lambda recorder: _built(model, retriever, preset=chosen, prompt=prompt, trigger=recorder, **others),
            retriever,
            questions=asked,
            goal=goal,
            kind=learner,
            preset=chosen,
            calibrated_for=lambda: belonging(model, prompt),
            samples=samples,
            seed=bootstrap_seed,
            probe=probe,
            shown=lambda values, what: _bar(values, what, show=progress),
        )
    watching: Any = trigger or chosen.settings["trigger"]
    if threshold_of(watching) is None:
        with_threshold(watching, 0.0)  # raises the error that explains why
    if cost is not None and retriever is None:
        raise ConfigurationError("with cost, the graph searches and its answers are compared; pass the retriever")

    def graph(with_trigger: Trigger | Recorder) -> Any:
        return create_dynamic_rag(
            model,
            retriever or _unneeded(chosen, others),
            preset=chosen,
            prompt=prompt,
            trigger=with_trigger,
            **others,
        )

    recorder = Recorder(watching)
    drafted = write_drafts(graph(recorder), recorder, _bar(asked, "drafts", show=progress))
    judgements = [d.judgements for d in drafted]
    curve = Curve.of(judgements)
    taken = _Taken(curve, lambda value: _is_valid(watching, value))
    if cost is None:
        assert rate is not None
        threshold = taken.at(rate, per)
        spread = curve.bootstrap(rate, per, samples=samples, seed=bootstrap_seed)
        shown = tuple(_point(curve, taken.at(r, per)) for r in _SHOWN)
        result, stability, wanted = _point(curve, threshold), None, {"rate": rate, "per": per}
    else:
        runs = _run_all(graph, watching, curve, taken, drafted, points, progress=progress)
        shown = tuple(r.point(curve, bootstrap_seed, samples) for r in runs)
        best, spread, stability = _best(runs, cost, samples, bootstrap_seed)
        threshold, result, wanted = runs[best].threshold, shown[best], {"cost": cost}
    check(curve, judgements, threshold)
    return Calibration(
        trigger=with_threshold(watching, threshold),
        threshold=threshold,
        interval=interval(spread),
        wanted=wanted,
        chosen=result,
        rate_interval=curve.rate_interval(threshold, per, samples=samples, seed=bootstrap_seed),
        points=tuple(dict.fromkeys(shown)),
        questions=len(asked),
        pieces=sum(map(len, judgements)),
        preset=chosen.name,
        dataset=chosen.dataset,
        bundle=chosen.bundle,
        calibrated_for=belonging(model, prompt),
        stability=stability,
    )


_PARAMETERS = ("model", "retriever", *(calibrate.__kwdefaults__ or ()), "questions")


# ---------------------------------------------------------------------- runs at several thresholds


@dataclass(frozen=True)
class _Run:
    """Results of the graph at one threshold."""

    threshold: float
    f1: Values
    """F1 of each answer, (questions,)."""
    searches: Values
    """Number of searches of each question, (questions,)."""

    def point(self, curve: Curve, seed: int, samples: int) -> Point:
        drawn = _drawn(len(self.f1), samples, seed)
        return Point(
            self.threshold,
            curve.rate(self.threshold, "sentence"),
            curve.rate(self.threshold, "question"),
            float(self.searches.mean()),
            float(self.f1.mean()),
            interval(self.f1[drawn].mean(1)),
        )


@dataclass(frozen=True)
class _Taken:
    """The thresholds of a curve that the trigger accepts."""

    curve: Curve
    valid: Callable[[float], bool]

    def at(self, rate: float, per: Per) -> float:
        return self.curve.threshold(rate, per, self.valid)


def _run_all(
    graph: Callable[[Trigger], Any],
    trigger: Trigger,
    curve: Curve,
    taken: _Taken,
    drafted: Sequence[Drafted],
    points: int,
    *,
    progress: bool,
) -> list[_Run]:
    """Run the graph at thresholds spread evenly over the rates, including the one that never fires."""
    thresholds = list(dict.fromkeys(taken.at(j / (points - 1), "question") for j in range(points)))
    runs = []
    for threshold in thresholds:
        fires = curve.firing(threshold) > 0
        scores, searches = [], []
        built = graph(with_threshold(trigger, threshold)) if fires.any() else None
        for d, fired in zip(_bar(drafted, f"threshold {threshold:.3g}", show=progress), fires, strict=True):
            # If the trigger does not fire, the graph would only repeat its draft.
            answer, count = answered(built, d.asked) if fired else (d.answer, d.searches)
            scores.append(f1(answer, d.asked.answers))
            searches.append(count)
        runs.append(_Run(threshold, np.asarray(scores, np.float64), np.asarray(searches, np.float64)))
    return runs


def _best(runs: Sequence[_Run], cost: float, samples: int, seed: int) -> tuple[int, Values, float]:
    """Choose the best run within the cost.

    Returns:
        The index of the best run, the thresholds that bootstrap samples choose (samples,), and the share of samples
        that choose the same run.

    Raises:
        ConfigurationError: If every run costs more.
    """
    least = min(float(r.searches.mean()) for r in runs)
    if least > cost:
        raise ConfigurationError(
            f"cost is {cost:g} searches per question, but this method makes at least {least:g} before it writes; allow "
            "more, or start without a search: initial_retrieval=False"
        )
    scores = np.stack([r.f1 for r in runs])  # (runs, questions)
    searches = np.stack([r.searches for r in runs])

    def choose(questions: Any) -> int:
        f, s = scores[:, questions].mean(1), searches[:, questions].mean(1)
        # If every run exceeds the cost in a sample, take the cheapest.
        allowed = [i for i in range(len(runs)) if s[i] <= cost] or [int(s.argmin())]
        return min(allowed, key=lambda i: (-round(float(f[i]), 9), s[i]))

    best = choose(slice(None))
    picked = [choose(d) for d in _drawn(scores.shape[1], samples, seed)]
    return best, np.asarray([runs[i].threshold for i in picked]), float(np.mean(np.asarray(picked) == best))


def _drawn(count: int, samples: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, count, (samples, count))


# ---------------------------------------------------------------------- helpers


def _learned_goal(
    trigger: object,
    rate: float | None,
    per: str,
    cost: float | None,
    missed: float | None,
    confidence: float,
    given_up: float | None,
    learner: str,
) -> Goal | None:
    """Return what a learned trigger is calibrated for; None if the trigger is another."""
    if isinstance(trigger, str) and trigger != "learned":
        raise ConfigurationError(f"trigger is {trigger!r}; a trigger, or 'learned', is needed")
    if trigger != "learned":
        for name, value in (("missed", missed), ("given_up", given_up)):
            if value is not None:
                raise ConfigurationError(f"{name} is a bound for a learned trigger's probabilities: trigger='learned'")
        return None
    if learner not in get_args(ModelKind):
        raise ConfigurationError(f"learner is {learner!r}; known: {', '.join(map(repr, get_args(ModelKind)))}")
    if cost is not None or per != "sentence":
        raise ConfigurationError(
            f"with trigger='learned', {'cost' if cost is not None else 'per'} is not supported; pass rate or missed "
            "first, and then the trigger that was found: calibrate(..., trigger=found.trigger)"
        )
    return Goal(rate, missed, confidence, given_up)


def _built(model: ChatModelLike, retriever: Retriever | None, **parts: Any) -> Any:
    """Return a graph and its settings."""
    return create_dynamic_rag(model, retriever, **parts), create_nodes(model, retriever, **parts).begin.settings


def _check_options(rate: float | None, per: str, cost: float | None, asked: Sequence[CalibrationQuestion]) -> None:
    if (rate is None) == (cost is None):
        given = "neither" if rate is None else "both"
        raise ConfigurationError(
            f"{given} of rate and cost were given; pass exactly one: rate=0.3 (a share of the pieces), or cost=2 "
            "(searches per question, with answers)"
        )
    if rate is not None and not 0 <= rate <= 1:
        raise ConfigurationError(f"rate is {rate}; a share from 0 to 1 is needed")
    if cost is not None and not cost >= 0:
        raise ConfigurationError(f"cost is {cost}; a number of searches per question, 0 or more, is needed")
    if per not in get_args(Per):
        raise ConfigurationError(f"per is {per!r}; known: {', '.join(map(repr, get_args(Per)))}")
    if cost is not None and (unanswered := [a.question for a in asked if not a.answers]):
        raise ConfigurationError(
            f"cost compares answers with the correct ones, but {len(unanswered)} of {len(asked)} questions have none, "
            f"the first: {unanswered[0]!r}"
        )


def _check_counts(points: int, samples: int, asked: Sequence[CalibrationQuestion]) -> None:
    for name, value, least in (("points", points, 2), ("samples", samples, 100)):
        if value < least:
            raise ConfigurationError(f"{name} is {value}; at least {least} are needed")
    if len(asked) < _FEW:
        logger.warning("%d questions leave the threshold very uncertain; use a few dozen", len(asked))


def _is_valid(trigger: Trigger, value: float) -> bool:
    try:
        with_threshold(trigger, value)
    except ConfigurationError:
        return False
    return True


def _point(curve: Curve, threshold: float) -> Point:
    return Point(threshold, curve.rate(threshold, "sentence"), curve.rate(threshold, "question"))


class _Empty(BaseRetriever):
    """A placeholder for the retriever of a graph that never searches."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
    ) -> list[Document]:
        raise AssertionError(f"a graph without a retriever searched for {query!r}")


def _unneeded(preset: Preset, changes: Mapping[str, Any]) -> Retriever:
    if {**preset.settings, **changes}.get("initial_retrieval"):
        raise ConfigurationError(f"{preset.name} begins with a search; pass the retriever, or initial_retrieval=False")
    return _Empty()


def _bar(values: Sequence[Any], what: str, *, show: bool) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(values, desc=what, disable=not show, leave=False)
