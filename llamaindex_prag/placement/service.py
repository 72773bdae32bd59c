"""Decides how retrieved passages are used: plan -> route -> make missing adapters -> place.

The classes of both frameworks translate to and from this service. Planning and placing look up adapters and may measure
forgetting and contradictions; making takes minutes to train or milliseconds to translate. All calls block, so an event
loop must run them in a thread (`rag_backbone.aio`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal, get_args

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.adapters.active_adapters import BESIDE_TEXT
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.guards.conflict_policies import date_of
from llamaindex_prag.placement.ask_router import AskedAdapters, AskRouter
from llamaindex_prag.placement.auto_chooser import AutoChooser
from llamaindex_prag.placement.auto_policy import AutoDecision
from llamaindex_prag.placement.candidate import Candidate, Making, PlacementPlan
from llamaindex_prag.placement.lexical_router import LexicalRouter
from llamaindex_prag.placement.maker import MadeAdapters, Maker
from llamaindex_prag.placement.placer import Placement, Placer, best_scored
from llamaindex_prag.placement.routing import DocumentRoute, Route, Router, RoutingScores
from llamaindex_prag.placement.unsure_router import UnsureRouter
from llamaindex_prag.progress import Progress
from rag_backbone.checks import suggestion
from rag_backbone.errors import AdapterError, ConfigurationError

Missing = Literal["train", "translate", "context", "error"]
"""How to treat a passage without an adapter: make the adapter, keep the text in the prompt, or raise an error."""
_MAKING: dict[Missing, Making] = {"train": "train", "translate": "translate"}


class PlacementService:
    """Places the passages retrieved for questions to one model.

    Args:
        model: The model with its adapters.
        placer: Decides which passages act, and how strongly.
        missing: How to treat a passage without an adapter.
        route: How the passages that act are chosen.
        beside: Whether the text of a passage is in the prompt in addition to its adapter.
        strength: Factor on the updates. None for 1, or `BESIDE_TEXT` if the text is in the prompt too.
        chooser: Decides per passage instead of `missing` and `beside`.
        waiting: Logger that reports, at WARNING, that a question waits for training.
        progress: Whether to show a progress bar on stderr during training.
        watch: Callback that is called a few times per second during training.
    """

    def __init__(
        self,
        model: AdapterModel,
        placer: Placer,
        *,
        waiting: logging.Logger,
        missing: Missing = "train",
        route: Route = "lexical",
        beside: bool = False,
        strength: float | None = None,
        chooser: AutoChooser | None = None,
        progress: bool = False,
        watch: Progress | None = None,
    ) -> None:
        self._model, self._placer, self._chooser = model, placer, chooser
        self._missing, self._beside, self._strength = missing, beside, strength
        self._router = router_named(route, model)
        self._maker = Maker(model, waiting=waiting, progress=progress, watch=watch)

    def plan(self, candidates: Sequence[Candidate]) -> list[PlacementPlan]:
        """Plan how each passage is used. A chooser counts each passage as retrieved once more.

        Raises:
            AdapterError: If a passage has no adapter and `missing` is `"error"`.
        """
        if self._chooser is not None:
            choices = self._chooser.choose([c.text for c in candidates])
            return [self._chosen(choice, c) for choice, c in zip(choices, candidates, strict=True)]
        if self._missing == "error":
            self._refuse_lacking(candidates)
        make = _MAKING.get(self._missing)
        return [PlacementPlan(make, self._beside, "" if c.text.strip() else "no text") for c in candidates]

    def prepare(
        self, candidates: Sequence[Candidate], question: str = "", plans: Sequence[PlacementPlan] | None = None
    ) -> MadeAdapters:
        """Make the missing adapters of the passages that should act.

        If an adapter cannot be made, the next passage takes its place.

        Args:
            candidates: The passages, best first.
            question: The question, needed to route.
            plans: Plans for the passages; None to plan here.
        """
        started, made = time.monotonic(), MadeAdapters()
        plans = self.plan(candidates) if plans is None else plans
        ranks, plans, _ = self._routed(candidates, question, plans)
        lost: set[int] = set()
        while not made.store_failed and (lacking := self._lacking(candidates, plans, ranks, lost)):
            for making in _MAKING.values():
                group = [candidates[i] for i in lacking if plans[i].make == making]
                if group:
                    self._maker.make(making, group, made)
            lost.update(i for i in lacking if self._key(candidates[i]) is None)
        for c, plan in zip(candidates, plans, strict=True):
            if why := plan.in_context or self._why_lost(c, plan):
                made.failed.setdefault(c.id, why)
        made.seconds = time.monotonic() - started
        return made

    def place(
        self,
        candidates: Sequence[Candidate],
        question: str = "",
        plans: Sequence[PlacementPlan] | None = None,
        *,
        times: float = 1.0,
    ) -> Placement:
        """Decide how each passage is used, given the adapters that exist now.

        Args:
            candidates: The passages, best first.
            question: The question, needed to route and to measure contradictions.
            plans: Plans for the passages; None to plan here.
            times: Factor by which the caller multiplies the strengths afterwards. Forgetting is measured with it, but
                the reported strengths do not include it.
        """
        plans = self.plan(candidates) if plans is None else plans
        ranks, plans, routing = self._routed(candidates, question, plans)
        lost: set[int] = set()
        while lacking := self._lacking(candidates, plans, ranks, lost):
            lost.update(lacking)
        # Adapters of passages that do not act are not needed, so these passages count as having one.
        placed = self._placer.place(
            self._keys(candidates, plans, lost),
            question=question,
            strengths=[times * (self._strength or (BESIDE_TEXT if plan.beside else 1.0)) for plan in plans],
            scores=[c.score for c in candidates],
            dates=[date_of(c.metadata) for c in candidates],
            ranks=ranks,
        )
        strengths = {i: s / times for i, s in placed.strengths.items()}
        return replace(placed, strength=placed.strength / times, strengths=strengths, routing=routing)

    def _routed(
        self, candidates: Sequence[Candidate], question: str, plans: Sequence[PlacementPlan]
    ) -> tuple[list[float | None], Sequence[PlacementPlan], RoutingScores | None]:
        """Return the scores by which passages are chosen, and plans that say so if none may act."""
        if self._router is None or not question.strip():
            return [c.score for c in candidates], plans, None
        keys = [None if plan.in_context else self._key(c) for c, plan in zip(candidates, plans, strict=True)]
        found = self._router.scores(question, candidates, keys)
        if found.refused:
            plans = [replace(plan, in_context=plan.in_context or found.refused) for plan in plans]
        return [-math.inf if score is None else score for score in found.scores], plans, found

    def _chosen(self, choice: AutoDecision, candidate: Candidate) -> PlacementPlan:
        if choice.way == "context":
            return PlacementPlan(in_context=choice.why)
        if choice.way == "translated":
            return PlacementPlan("translate")
        return PlacementPlan(None if self._model.knows(candidate.text) else "train", beside=choice.way == "combined")

    def _refuse_lacking(self, candidates: Sequence[Candidate]) -> None:
        lacking = [c.id for c in candidates if c.text.strip() and self._key(c) is None]
        if lacking:
            raise AdapterError(
                f"{len(lacking)} of {len(candidates)} retrieved nodes have no adapter, the first is {lacking[0]}. "
                "Parametrize them first (ParametrizeNodes, `dynprag parametrize`), or choose missing='train' or "
                "missing='context'."
            )

    def _lacking(
        self,
        candidates: Sequence[Candidate],
        plans: Sequence[PlacementPlan],
        ranks: Sequence[float | None],
        lost: Collection[int],
    ) -> list[int]:
        """Return the indices of passages that should act and have no adapter; `lost` passages never act."""
        active = best_scored(self._keys(candidates, plans, lost), ranks, self._placer.candidates)
        return [i for i in active if self._key(candidates[i]) is None]

    def _keys(
        self, candidates: Sequence[Candidate], plans: Sequence[PlacementPlan], lost: Collection[int]
    ) -> list[AdapterKey | None]:
        """Return the key of each passage's adapter, including adapters that can still be made."""
        return [
            None if i in lost else self._possible(c, plan)
            for i, (c, plan) in enumerate(zip(candidates, plans, strict=True))
        ]

    def _possible(self, candidate: Candidate, plan: PlacementPlan) -> AdapterKey | None:
        if plan.in_context:
            return None
        if (key := self._key(candidate)) is not None:
            return key
        makeable = plan.make is not None and self._maker.why_not(candidate, plan.make) is None
        return self._model.key(candidate.text) if makeable else None

    def _why_lost(self, candidate: Candidate, plan: PlacementPlan) -> str | None:
        if plan.make is None or self._key(candidate) is not None:
            return None
        return self._maker.why_not(candidate, plan.make)

    def _key(self, candidate: Candidate) -> AdapterKey | None:
        """Return the key of the passage's adapter, or None if it has none."""
        original = self._model.find_hash(candidate.original) if candidate.original else None
        return original or self._model.find(candidate.text)


def router_named(route: DocumentRoute, model: AdapterModel, *, known: Sequence[str] = get_args(Route)) -> Router | None:
    """Return the router of a name; None for `"retrieval"`, which needs none.

    Raises:
        ConfigurationError: If the name is not among the `known` ones, or model and adapters cannot be asked because
            only a server's address is known.
    """
    if route not in known:
        raise ConfigurationError(f"route is {route!r}{suggestion(str(route), known)}; known: {', '.join(known)}")
    if route == "unsure":
        return UnsureRouter(LexicalRouter(bound=0), model.local)
    if route == "ask":
        return AskRouter(AskedAdapters(model.local))
    return LexicalRouter() if route == "lexical" else None
