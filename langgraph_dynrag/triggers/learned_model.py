"""Apply a learned model: logistic regression or boosted trees, and isotonic calibration, from plain numbers.

Training needs scikit-learn (`langgraph_dynrag.calibration.training`); applying needs nothing, so that a preset file can
be used without it. With `s` as the logistic function, the uncalibrated probability is

    logistic:  s(intercept + sum_i weights_i * (x_i - means_i) / scales_i)
    trees:     s(intercept + sum_t value of the leaf of tree t that x falls into)

The inputs `x` are the features and, if there is a probe on hidden states, its log-odds as the last one. A missing `x_i`
is replaced by `means_i`. Calibration interpolates linearly between the knots of an isotonic regression and is constant
beyond them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from langgraph_dynrag.triggers.features import check_names
from langgraph_dynrag.triggers.plain_numbers import finite_numbers
from langgraph_dynrag.triggers.probe import Probe
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError

ModelKind = Literal["logistic", "trees"]


@dataclass(frozen=True, slots=True)
class Tree:
    """A regression tree as parallel lists over its nodes; node 0 is the root.

    Raises:
        ConfigurationError: If the lists do not form a tree.
    """

    feature: tuple[int, ...]
    """Index of the input that an inner node compares; -1 for a leaf."""
    threshold: tuple[float, ...]
    """Inner nodes lead to the left if the feature is at most this."""
    left: tuple[int, ...]
    right: tuple[int, ...]
    """Index of the child nodes, which come after their parent."""
    value: tuple[float, ...]
    """Value of each leaf, in log-odds; 0 for inner nodes."""

    def __post_init__(self) -> None:
        for name, kind in (("feature", int), ("left", int), ("right", int), ("threshold", float), ("value", float)):
            object.__setattr__(self, name, finite_numbers(getattr(self, name), f"a tree's {name}", whole=kind is int))
        nodes = len(self.feature)
        if not nodes or {len(getattr(self, f.name)) for f in fields(self)} != {nodes}:
            raise ConfigurationError("a tree's lists differ in length or are empty; each needs one entry per node")
        for node, of in enumerate(self.feature):
            # Children after their parent: the way from the root always ends.
            if of >= 0 and not (node < self.left[node] < nodes and node < self.right[node] < nodes):
                raise ConfigurationError(
                    f"node {node} of a tree leads to {self.left[node]} and {self.right[node]}; nodes after it, below "
                    f"{nodes}, are needed"
                )

    def leaf(self, x: Sequence[float]) -> float:
        """Return the value of the leaf that features fall into."""
        node = 0
        while self.feature[node] >= 0:
            node = (self.left if x[self.feature[node]] <= self.threshold[node] else self.right)[node]
        return self.value[node]


@dataclass(frozen=True, slots=True)
class LearnedModel:
    """The probability that retrieving at a sentence would help, as a function of the sentence's features.

    Its fields are plain numbers, as they stand in a preset file.

    Raises:
        ConfigurationError: If a feature is unknown, or the numbers do not belong together.
    """

    kind: ModelKind
    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    intercept: float
    weights: tuple[float, ...] = ()
    """One per input, for `kind="logistic"`."""
    trees: tuple[Tree, ...] = ()
    """For `kind="trees"`."""
    calibration: tuple[tuple[float, float], ...] = ()
    """Knots (uncalibrated, calibrated), both ascending; none: the probability stays as it is."""
    probe: Probe | None = None
    """A probe on hidden states, whose log-odds are the last input, after the features."""

    def __post_init__(self) -> None:
        if self.kind not in ("logistic", "trees"):
            raise ConfigurationError(f"the kind of a learned model is {self.kind!r}; known: 'logistic', 'trees'")
        listed: Any = self.features
        if not isinstance(listed, list | tuple):
            raise ConfigurationError(f"the features of a learned model are {shown(listed)}; a list of names is needed")
        object.__setattr__(self, "features", tuple(listed))
        check_names(self.features)
        if self.probe is not None:
            object.__setattr__(self, "probe", Probe.of(self.probe))
        object.__setattr__(self, "intercept", finite_numbers([self.intercept], "the intercept of a learned model")[0])
        for name in ("means", "scales", "weights"):
            object.__setattr__(self, name, finite_numbers(getattr(self, name), f"{name} of a learned model"))
        object.__setattr__(self, "trees", tuple(_tree(t) for t in self.trees))
        knots = tuple(finite_numbers(pair, "a knot of the calibration") for pair in self.calibration)
        object.__setattr__(self, "calibration", knots)
        self._check_sizes()

    def _check_sizes(self) -> None:
        count = len(self.features) + (self.probe is not None)
        for name, numbers, needed in (
            ("means", self.means, count),
            ("scales", self.scales, count),
            ("weights", self.weights, count if self.kind == "logistic" else 0),
        ):
            if len(numbers) != needed:
                raise ConfigurationError(
                    f"a learned model of kind {self.kind!r} with {count} inputs has {len(numbers)} {name}; {needed} "
                    "are needed"
                )
        if any(scale <= 0 for scale in self.scales):
            raise ConfigurationError(f"scales of a learned model are {list(self.scales)}; they must be above 0")
        if bool(self.trees) is not (self.kind == "trees"):
            raise ConfigurationError(f"a learned model of kind {self.kind!r} has {len(self.trees)} trees")
        if any(of >= count for tree in self.trees for of in tree.feature):
            raise ConfigurationError(f"a tree of a learned model compares an input beyond the {count} that there are")
        xs, ys = [k[0] for k in self.calibration], [k[-1] for k in self.calibration]
        pairs = all(len(k) == 2 for k in self.calibration)
        if not pairs or xs != sorted(set(xs)) or ys != sorted(ys) or any(not 0 <= y <= 1 for y in ys):
            raise ConfigurationError(
                "the calibration of a learned model is no list of pairs (uncalibrated, calibrated) of ascending "
                "probabilities"
            )

    @classmethod
    def of(cls, value: LearnedModel | Mapping[str, Any]) -> LearnedModel:
        """Return the model that a mapping from JSON describes.

        Raises:
            ConfigurationError: If it describes none.
        """
        if isinstance(value, LearnedModel):
            return value
        known = {f.name for f in fields(cls)}
        if not isinstance(value, Mapping) or not {"kind", "features", "means", "scales", "intercept"} <= set(value):
            raise ConfigurationError(
                f"{shown(value)} is no learned model; an object with kind, features, means, scales and intercept is "
                "needed"
            )
        if unknown := set(value) - known:
            raise ConfigurationError(
                f"a learned model has no {', '.join(sorted(map(str, unknown)))}; known: {', '.join(sorted(known))}"
            )
        return cls(**value)

    def uncalibrated(self, values: Sequence[float | None]) -> float:
        """Return the probability before calibration.

        Args:
            values: The features, in the order of `features`, and the probe's log-odds if there is one; None: missing.
        """
        filled = [mean if v is None else v for v, mean in zip(values, self.means, strict=True)]
        if self.kind == "logistic":
            each = zip(self.weights, filled, self.means, self.scales, strict=True)
            return _logistic(self.intercept + math.fsum(w * (x - mean) / scale for w, x, mean, scale in each))
        # scikit-learn's trees compare features in single precision.
        single = [float(np.float32(x)) for x in filled]
        return _logistic(self.intercept + math.fsum(tree.leaf(single) for tree in self.trees))

    def probability(self, values: Sequence[float | None]) -> float:
        """Return the calibrated probability; arguments as for `uncalibrated`."""
        return calibrated(self.uncalibrated(values), self.calibration)


def calibrated(p: float, knots: Sequence[tuple[float, float]]) -> float:
    """Interpolate linearly between ascending knots, constant beyond them; without knots, return `p`."""
    if not knots:
        return p
    at = bisect_right(knots, p, key=lambda knot: knot[0])
    if at == 0:
        return knots[0][1]
    if at == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[at - 1], knots[at]
    return y0 + (y1 - y0) * (p - x0) / (x1 - x0)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _tree(value: Tree | Mapping[str, Any]) -> Tree:
    if isinstance(value, Tree):
        return value
    needed = [f.name for f in fields(Tree)]
    if not isinstance(value, Mapping) or set(value) != set(needed):
        raise ConfigurationError(f"{shown(value)} is no tree; an object with {', '.join(needed)} is needed")
    return Tree(**value)
