"""Decides which passages act through their adapters, and how strongly, by one rule for all front ends.

keys -> best-scored -> contradictions, if measured -> forgetting, if measured -> active adapters, reasons for the rest

By default only the best-scored passage acts, because merged adapters weaken each other: with a 0.5B model, the right
adapter alone gives an F1 of 25, the mean of five gives 6 (docs/results-parametric.md).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
from llamaindex_prag.adapters.strategies import active_limit
from llamaindex_prag.guards.conflict_policies import Resolution, known_policy, resolve
from llamaindex_prag.guards.conflicts import BOUND, OVERLAP, ConflictMeter, Conflicts
from llamaindex_prag.guards.forgetting import ForgettingGuard
from llamaindex_prag.placement.routing import RoutingScores
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from llamaindex_prag.adapter_model import AdapterModel
    from llamaindex_prag.adapters.adapter import AdapterKey
    from rag_backbone.engine.adapters import Ensemble
    from rag_backbone.engine.ensemble import AdapterEnsemble

Others = Literal["omit", "context"]
"""Whether passages that have an adapter but do not act through it are left out, or put into the prompt."""
NO_ADAPTER = "no adapter"


@dataclass(frozen=True, slots=True)
class Placement:
    """How each passage is used; passages are identified by index."""

    in_weights: tuple[int, ...] = ()
    """Passages that act through their adapters."""
    selection: ActiveAdapters | None = None
    """Active adapters of these passages; None if there are none."""
    ensemble: AdapterEnsemble | None = None
    """The ensemble that takes the place of `selection`; None if the updates are merged."""
    strengths: Mapping[int, float] = field(default_factory=dict)
    """Factor on the update of each passage in `in_weights`, applied before averaging."""
    in_prompt: Mapping[int, str] = field(default_factory=dict)
    """Passages whose text must be in the prompt, with the reason."""
    left_out: Mapping[int, str] = field(default_factory=dict)
    """Passages that are not used at all, with the reason."""
    strength: float = 1.0
    """Largest strength, after the guard."""
    forgetting: float | None = None
    """Change of unrelated answers by the adapters, in nats per token; None if it was not measured."""
    conflicts: Conflicts | None = None
    """Contradictions between the documents; None if they were not measured."""
    routing: RoutingScores | None = None
    """How the passages were scored; None if by their retrieval scores alone."""


class Placer:
    """Places passages for one model.

    Args:
        model: The model with its adapters.
        merge: How updates are combined if several passages act.
        ensemble: How next-token distributions are mixed instead, weighed by the softmax of the retrieval scores; None
            to merge the updates.
        max_active: Maximum number of passages that act through their adapters at once, best-scored first. None for 1,
            or with `conflicts`, whose policies need several documents, for as many as a call may use.
        others: What happens to other passages that have an adapter: `"omit"` leaves them out, `"context"` puts them
            into the prompt.
        forgetting: Bound of a `ForgettingGuard`; None to measure nothing.
        conflicts: Policy for documents that contradict each other; None to measure nothing.
        conflict_bound: Documents contradict each other above this many nats; None for `conflicts.BOUND`.
        conflict_overlap: Documents whose updates have a smaller cosine never count as contradicting. None for
            `conflicts.OVERLAP`; -1 compares all.
        may_part: Whether passages of one question may also act one by one, as in LlamaIndex synthesizers that process
            nodes in turn; each adapter alone is then kept within the forgetting bound too.

    Raises:
        ConfigurationError: If the policy is unknown, a bound is out of range, `max_active` exceeds what a call may
            use, or the model cannot combine adapters in this way (`AdapterModel.check_strategy`).
    """

    def __init__(
        self,
        model: AdapterModel,
        *,
        merge: Merge = "mean",
        ensemble: Ensemble | None = None,
        max_active: int | None = None,
        others: Others = "omit",
        forgetting: float | None = None,
        conflicts: str | None = None,
        conflict_bound: float | None = None,
        conflict_overlap: float | None = None,
        may_part: bool = False,
    ) -> None:
        model.check_strategy(merge, ensemble)
        self._model = model
        self._merge = merge
        self._ensemble = ensemble
        # An ensemble's KL divergence from the base model is at most the weighted mean of its members', so the guard
        # measures each adapter alone.
        self._may_part = may_part or ensemble is not None
        self._active = active_limit(max_active, merge, conflicts, model.max_adapters)
        if others not in get_args(Others):
            raise ConfigurationError(f"others is {others!r}; known: {', '.join(get_args(Others))}")
        self._others: Others = others
        self._guard = None if forgetting is None else ForgettingGuard(model.local, bound=forgetting)
        self._policy = None if conflicts is None else known_policy(conflicts)
        self._meter = None
        if conflicts is not None:
            overlap = OVERLAP if conflict_overlap is None else conflict_overlap
            self._meter = ConflictMeter(model.local, bound=conflict_bound or BOUND, least_overlap=overlap)

    @property
    def candidates(self) -> int:
        """Number of passages whose adapters are needed to decide which of them act."""
        return self._active if self._meter is None else self._model.max_adapters

    def place(
        self,
        keys: Sequence[AdapterKey | None],
        *,
        question: str,
        strengths: Sequence[float],
        scores: Sequence[float | None],
        dates: Sequence[datetime | None],
        ranks: Sequence[float | None] | None = None,
    ) -> Placement:
        """Decide how each passage is used.

        Args:
            keys: Keys of the passages' adapters, best first; None for a passage without an adapter. Only the
                best-scored ones are loaded.
            question: The question, needed to measure contradictions; if blank, none are measured.
            strengths: Factor on each passage's update.
            scores: Retrieval scores, which also weigh adapters where a merge or policy asks for scores.
            dates: Date of the last change of each passage's document.
            ranks: Scores by which the passages that act are chosen; None for the retrieval scores.
        """
        in_prompt: dict[int, str] = {i: NO_ADAPTER for i, key in enumerate(keys) if key is None}
        left_out: dict[int, str] = {}
        beyond = in_prompt if self._others == "context" else left_out
        ranks = scores if ranks is None else ranks
        measured = sorted(best_scored(keys, ranks, self.candidates))
        known = {i: key for i in measured if (key := keys[i]) is not None}
        conflicts = self._measured(question, list(known.values()))
        resolution = self._resolved(conflicts, known, dates)
        in_prompt |= resolution.in_prompt
        left_out |= resolution.left_out
        kept = [key if i in resolution.in_weights else None for i, key in enumerate(keys)]
        taken = sorted(best_scored(kept, ranks, self._active))
        placed = {*in_prompt, *left_out, *taken}
        beyond |= {i: self._reason() for i in range(len(keys)) if i not in placed}
        weights = usable_scores([scores[i] for i in taken])
        shares = _shares(weights) if resolution.by_score else [1.0] * len(taken)
        wanted = {i: share * strengths[i] for i, share in zip(taken, shares, strict=True)}
        by_score = weights if self._merge == "score" else None
        selection = self._model.select(
            [known[i] for i in taken], merge=self._merge, scores=by_score, strength=list(wanted.values())
        )
        part, forgetting = 1.0, None
        if self._guard is not None and selection is not None:
            single = {i: s for i, s in wanted.items() if s > 0} if self._may_part else {}
            alone = [one for i, s in single.items() if (one := self._model.select([known[i]], strength=s)) is not None]
            selection, part, forgetting = self._guarded(self._guard, selection, alone if len(alone) > 1 else ())
            if selection is None:
                in_prompt |= dict.fromkeys(taken, f"forgets {forgetting:.3g} nats of other things")
                wanted = {}
        final = {i: part * s for i, s in wanted.items()}
        return Placement(
            in_weights=tuple(wanted),
            selection=selection,
            ensemble=self._mixed({i: known[i] for i, s in final.items() if s > 0}, final, scores),
            strengths=final,
            in_prompt=in_prompt,
            left_out=left_out,
            strength=part * max(strengths, default=1.0),
            forgetting=forgetting,
            conflicts=conflicts,
        )

    def _mixed(
        self, keys: Mapping[int, AdapterKey], strengths: Mapping[int, float], scores: Sequence[float | None]
    ) -> AdapterEnsemble | None:
        if self._ensemble is None:
            return None
        given = [s if (s := scores[i]) is not None and math.isfinite(s) else 0.0 for i in keys]
        return self._model.ensemble(
            list(keys.values()), kind=self._ensemble, scores=given, strength=[strengths[i] for i in keys]
        )

    def _reason(self) -> str:
        """Return why a passage with an adapter does not act through it."""
        if self._active == self._model.max_adapters:
            return f"more than the {self._active} adapters that a call may use"
        return f"another passage has a better score, and {self._active} may act through adapters (max_active)"

    @staticmethod
    def _guarded(
        guard: ForgettingGuard, selection: ActiveAdapters, alone: Sequence[ActiveAdapters]
    ) -> tuple[ActiveAdapters | None, float, float]:
        """Return the guarded selection, the fraction of its strength that remains, and its forgetting in nats."""
        found = guard.guarded(selection)
        for one in alone if found.selection is not None else ():
            other = guard.guarded(one)
            if other.selection is None:
                return None, other.part, other.forgetting
            if other.part < found.part:
                found = replace(other, selection=selection.times(other.part))
        return found.selection, found.part, found.forgetting

    def _measured(self, question: str, keys: Sequence[AdapterKey]) -> Conflicts | None:
        if self._meter is None or len(set(keys)) < 2 or not question.strip():
            return None
        return self._meter.measure(question, keys)

    def _resolved(
        self, conflicts: Conflicts | None, known: Mapping[int, AdapterKey], dates: Sequence[datetime | None]
    ) -> Resolution:
        """Map the resolution back to passage indices; the meter merges passages with identical text."""
        if conflicts is None or self._policy is None:
            return Resolution(tuple(known))
        numbers: dict[int, list[int]] = {n: [] for n in range(len(conflicts.keys))}
        for i, key in known.items():
            numbers[conflicts.keys.index(key)].append(i)
        found = resolve(conflicts, self._policy, dates=[dates[numbers[n][0]] for n in numbers])
        return Resolution(
            tuple(sorted(i for n in found.in_weights for i in numbers[n])),
            {i: why for n, why in found.in_prompt.items() for i in numbers[n]},
            {i: why for n, why in found.left_out.items() for i in numbers[n]},
            found.by_score,
        )


def best_scored(identities: Sequence[Hashable | None], scores: Sequence[float | None] | None, count: int) -> list[int]:
    """Return the indices of the best-scored passages, best first.

    Args:
        identities: Equal values mark the same passage found twice, which is selected as one; None is never selected.
        scores: Equal scores keep their order, and so do all passages if any score is missing. NaN ranks last.
        count: Maximum number of different passages.
    """
    order = [i for i, identity in enumerate(identities) if identity is not None]
    given = [] if scores is None else [scores[i] for i in order]
    if given and None not in given:
        worth = {i: -math.inf if math.isnan(s) else s for i, s in zip(order, given, strict=True) if s is not None}
        order.sort(key=lambda i: -worth[i])
    chosen = set(list(dict.fromkeys(identities[i] for i in order))[:count])
    return [i for i in order if identities[i] in chosen]


def usable_scores(scores: Sequence[float | None]) -> list[float]:
    """Turn retrieval scores into weights: negative scores become 0, and if no weight is above 0, all are 1.

    A missing score counts as 1. NaN, the similarity of an all-zero embedding, counts as 0.
    """
    given = [1.0 if s is None else max(s, 0.0) if math.isfinite(s) else 0.0 for s in scores]
    return given if any(given) else [1.0] * len(given)


def _shares(scores: Sequence[float]) -> list[float]:
    """Return each score relative to the mean score: k s_i / sum."""
    return [len(scores) * s / sum(scores) for s in scores]
