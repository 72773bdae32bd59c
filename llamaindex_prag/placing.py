"""Which passages act through their adapters, how strongly, and which do not: one rule for all surfaces.

keys -> room -> contradictions, if watched -> forgetting, if watched -> a selection, and a reason for the rest
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llamaindex_prag.conflict_policies import Resolution, known_policy, resolve
from llamaindex_prag.conflicts import BOUND, OVERLAP, ConflictMeter, Conflicts
from llamaindex_prag.forgetting import ForgettingGuard
from llamaindex_prag.selection import Merge, Selection

if TYPE_CHECKING:
    from datetime import datetime

    from llamaindex_prag.adapter import AdapterKey
    from llamaindex_prag.parametric import ParametricModel
    from llamaindex_prag.serving.served_model import ServedModel


@dataclass(frozen=True, slots=True)
class Placing:
    """Where each passage acts; passages are told by their number."""

    in_weights: tuple[int, ...] = ()
    selection: Selection | None = None
    strengths: Mapping[int, float] = field(default_factory=dict)
    """Of those in the weights: what multiplies each one's update, before they are averaged."""
    in_prompt: Mapping[int, str] = field(default_factory=dict)
    """Whose text has to stand in the prompt, and why."""
    left_out: Mapping[int, str] = field(default_factory=dict)
    """Which are not used at all, and why."""
    strength: float = 1.0
    """Of the strongest, after the guard."""
    forgetting: float | None = None
    """What the adapters change of unrelated answers, nats a token; None: not measured."""
    conflicts: Conflicts | None = None
    """None: not measured."""


class Placer:
    """Places passages for one model.

    Args:
        model: The model with its adapters.
        merge: How updates are combined.
        forgetting: The bound of a `ForgettingGuard`; None: not measured.
        conflicts: The policy for documents that contradict each other; None: not measured.
        conflict_bound: Above so many nats they do; None: `conflicts.BOUND`.
        conflict_overlap: Below such a cosine of their updates they do not, whatever they say; None: not looked at.
        may_part: Whether the passages of one question may come to act one by one, as LlamaIndex's synthesizers have it
            that go through them in turn: each alone is then kept within the bound too.

    Raises:
        ConfigurationError: If the policy is unknown, or a bound is out of range.
    """

    def __init__(
        self,
        model: ParametricModel | ServedModel,
        *,
        merge: Merge = "mean",
        forgetting: float | None = None,
        conflicts: str | None = None,
        conflict_bound: float | None = None,
        conflict_overlap: float | None = OVERLAP,
        may_part: bool = False,
    ) -> None:
        self._model = model
        self._merge = merge
        self._may_part = may_part
        self._guard = None if forgetting is None else ForgettingGuard(model.local, bound=forgetting)
        self._policy = None if conflicts is None else known_policy(conflicts)
        self._meter = None
        if conflicts is not None:
            self._meter = ConflictMeter(model.local, bound=conflict_bound or BOUND, least_overlap=conflict_overlap)

    def place(
        self,
        keys: Sequence[AdapterKey | None],
        *,
        question: str = "",
        strength: float | Sequence[float] = 1.0,
        scores: Sequence[float | None] | None = None,
        dates: Sequence[datetime | None] | None = None,
    ) -> Placing:
        """Decide.

        Args:
            keys: Of the passages' adapters, best first; None where there is none.
            question: What is asked, for contradictions: without it none are looked for.
            strength: Of the adapters, or of each.
            scores: Retrieval scores.
            dates: When each passage's document was last changed.
        """
        in_prompt: dict[int, str] = {}
        taken: list[int] = []
        room = self._model.max_adapters
        for i, key in enumerate(keys):
            if key is None:
                in_prompt[i] = "no adapter"
            elif len(taken) == room:
                in_prompt[i] = f"more than the {room} adapters that a call may use"
            else:
                taken.append(i)
        known = {i: key for i, key in enumerate(keys) if key is not None and i in taken}
        conflicts = self._measured(question, list(known.values()))
        resolution = self._resolved(conflicts, known, dates)
        in_prompt |= resolution.in_prompt
        taken = [i for i in taken if i in resolution.in_weights]
        told = list(scores or [1.0] * len(keys))
        shares = _shares(usable_scores([told[i] for i in taken])) if resolution.by_score else [1.0] * len(taken)
        each = [float(strength)] * len(keys) if isinstance(strength, int | float) else list(strength)
        wanted = list(zip(taken, shares, strict=True))
        by_score = usable_scores([told[i] for i in taken]) if self._merge == "score" else None
        selection = self._model.select(
            [known[i] for i in taken], merge=self._merge, scores=by_score, strength=[s * each[i] for i, s in wanted]
        )
        part, forgetting = 1.0, None
        if self._guard is not None and selection is not None:
            single = [(known[i], s * each[i]) for i, s in wanted if s * each[i] > 0] if self._may_part else []
            alone = [one for key, s in single if (one := self._model.select([key], strength=s)) is not None]
            selection, part, forgetting = self._guarded(self._guard, selection, alone if len(alone) > 1 else ())
            if selection is None:
                in_prompt |= dict.fromkeys(taken, f"forgets {forgetting:.3g} nats of other things")
                wanted = []
        return Placing(
            tuple(i for i, _ in wanted), selection, {i: part * s * each[i] for i, s in wanted}, in_prompt,
            resolution.left_out, part * max(each, default=1.0), forgetting, conflicts,
        )  # fmt: skip

    @staticmethod
    def _guarded(
        guard: ForgettingGuard, selection: Selection, alone: Sequence[Selection]
    ) -> tuple[Selection | None, float, float]:
        """What is left of a selection, what part of its strength, and the nats that are forgotten at most."""
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
        self, conflicts: Conflicts | None, known: Mapping[int, AdapterKey], dates: Sequence[datetime | None] | None
    ) -> Resolution:
        """In the passages' own numbers: of two with the same text, the meter knows one."""
        if conflicts is None or self._policy is None:
            return Resolution(tuple(known))
        numbers: dict[int, list[int]] = {n: [] for n in range(len(conflicts.keys))}
        for i, key in known.items():
            numbers[conflicts.keys.index(key)].append(i)
        given = None if dates is None else [dates[numbers[n][0]] for n in numbers]
        found = resolve(conflicts, self._policy, dates=given)
        return Resolution(
            tuple(sorted(i for n in found.in_weights for i in numbers[n])),
            {i: why for n, why in found.in_prompt.items() for i in numbers[n]},
            {i: why for n, why in found.left_out.items() for i in numbers[n]},
            found.by_score,
        )


def usable_scores(scores: Sequence[float | None]) -> list[float]:
    """Retrieval scores as weights: not below 0, and all 1 where none is above it.

    A retriever that gives no score means 1; an all-zero embedding has the similarity nan, which is 0.
    """
    given = [1.0 if s is None else max(s, 0.0) if math.isfinite(s) else 0.0 for s in scores]
    return given if any(given) else [1.0] * len(given)


def _shares(scores: Sequence[float]) -> list[float]:
    """Of the mean: k s_i / sum."""
    return [len(scores) * s / sum(scores) for s in scores]
