"""The node postprocessor, which replaces the text of nodes in prompts with references to their adapters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, get_args

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.guards.conflict_policies import ConflictPolicy, known_policy
from llamaindex_prag.llama_index import reloaded, stray_markers
from llamaindex_prag.llama_index.arguments import refuse_unknown_arguments
from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.llama_index.long_prompts import refuse_long_question
from llamaindex_prag.llama_index.nodes import injected, with_use
from llamaindex_prag.llama_index.training_events import dispatch
from llamaindex_prag.placement.auto_chooser import AutoChooser
from llamaindex_prag.placement.auto_policy import AutoPolicy
from llamaindex_prag.placement.candidate import Candidate, PlacementPlan
from llamaindex_prag.placement.costs import Costs
from llamaindex_prag.placement.maker import MadeAdapters
from llamaindex_prag.placement.placer import NO_ADAPTER, Others, Placement, Placer
from llamaindex_prag.placement.routing import Route, RoutingScores
from llamaindex_prag.placement.service import Missing, PlacementService
from rag_backbone.aio import in_own_thread
from rag_backbone.documents.names import title_of
from rag_backbone.errors import ConfigurationError

Injection = Literal["parametric", "combined", "auto"]
_LACKING: dict[Missing, str] = {
    "translate": ", but the LLM has none: ParametricLLM(translator=FOLDER)",
    "train": "; name the model that the server runs, ParametricLLM(lm=...), or use missing='context'",
}
dispatcher = get_dispatcher(__name__)
logger = logging.getLogger(__name__)


class AdaptersInjectedEvent(BaseEvent):
    """Reports which nodes a query answers from the weights, and which stay in the prompt."""

    mode: str = ""
    """The postprocessor's `injection`."""
    route: str = ""
    """How the nodes that act were chosen."""
    injected: list[str]
    """IDs of the nodes whose adapters are used."""
    beside_text: list[str] = Field(default_factory=list)
    """IDs of the injected nodes whose text is in the prompt too."""
    trained: int
    """Number of adapters trained for this query."""
    translated: int = 0
    """Number of injected nodes whose adapter is translated, not trained."""
    strength: float = 1.0
    """Largest factor on the updates, after the guard."""
    forgetting: float | None = None
    """Change of unrelated answers at that strength, in nats per token; None if it was not measured."""
    in_context: dict[str, str]
    """Reasons of the nodes whose text stays in the prompt, by node ID."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Reasons of the nodes that are not used, by node ID."""
    conflicts: dict[str, Any] | None = None
    """`Conflicts.to_dict()`; None if contradictions were not measured."""
    routing: dict[str, float | None] | None = None
    """Score of each node by the router, by node ID; None with `route="retrieval"`."""
    asked: dict[str, str] | None = None
    """What each node's adapter answered alone, by node ID; None unless `route="ask"`."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in traces."""
        return "AdaptersInjectedEvent"


class ParametricNodePostprocessor(BaseNodePostprocessor):
    """Lets the LLM answer from the retrieved documents' adapters instead of their text.

    By default one node acts, the best-scored (the first among equal or missing scores): merged adapters weaken each
    other, so using two would halve the effect. How each node was used is reported in the event, in the log, and in the
    metadata of `response.source_nodes` under `"dynprag"`, which prompts leave out.

    Put it last: postprocessors that read or rewrite the text must come before it. The query engine needs the same
    `llm`; an error is logged if another LLM gets the references. `response_mode="context_only"` returns what prompts
    contain, the references.

    Args:
        llm: The `ParametricLLM` that the query engine uses.
        missing: How to treat a node without an adapter: `"train"` it now, `"translate"` it (the LLM needs a
            translator), leave its text in the `"context"`, or raise an `"error"`. A node that cannot be trained (too
            long, training diverges, read-only store) stays in the prompt and is not tried again. While a query waits
            for training, a warning names the document and the estimated time, a progress bar is shown on stderr, and
            `AdapterTrainingEvent`s are sent to LlamaIndex's event handlers.
        injection: `"parametric"` puts no text into the prompt. `"combined"` uses adapter and text. `"auto"` chooses the
            cheapest mode per node that `auto` allows: in context, trained or translated adapter, or both; `missing` is
            then not used.
        route: How the nodes that act are chosen: `"lexical"`, by their retrieval scores and the words that they share
            with the question; by their `"retrieval"` scores alone; or `"ask"`, by what their adapters answer: the one
            that gains most likelihood over the base model acts. The text of all nodes is used instead if no node has a
            sentence that names what is asked for (`"lexical"`), or no adapter gains anything (`"ask"`). Nodes without
            an adapter are not asked.
        max_active: Maximum number of nodes that act through their adapters at once, best-scored first. None for 1, or
            with `conflicts`, whose policies need several documents, for the LLM's `max_adapters`.
        others: What happens to the other nodes that have an adapter: `"omit"` leaves them out of the query, `"context"`
            puts their text into the prompt. None for `"omit"` with `injection="parametric"`, otherwise `"context"`.
        strength: Factor on the updates. None for 1, or 0.1 if the text is in the prompt too, where full strength
            disturbs reading more than it adds (docs/results-parametric.md).
        forgetting: Maximum change of the model's answers to unrelated questions, in nats per token (`ForgettingGuard`,
            which costs a short forward pass per new set of nodes); `forgetting.BOUND` (0.01) is safe. Adapters above
            the limit are weakened; if that is not enough, the text stays in the prompt. None to measure nothing.
        conflicts: How to treat nodes that contradict each other about the question (`ConflictMeter`, which lets each
            adapter answer it alone): `"mean"` of their updates, `"score-weighted"`, the `"latest"` by metadata, or
            their texts in the `"context"`. None to measure nothing.
        conflict_bound: Two nodes contradict each other above this many nats.
        conflict_overlap: Nodes whose updates have a smaller cosine are about different things and never contradict each
            other. None for `guards.conflicts.OVERLAP`; -1 compares all.
        auto: Policy of `injection="auto"` (quality, seconds); None for `AutoPolicy()`.
        costs: Costs on this machine; None to measure them when the postprocessor is first created on it, which takes up
            to a minute (`llamaindex_prag.placement.costs`).

    Example:
        >>> query_engine = index.as_query_engine(
        ...     llm=llm, node_postprocessors=[ParametricNodePostprocessor(llm=llm)]
        ... )  # doctest: +SKIP
    """

    llm: ParametricLLM
    missing: Missing = "train"
    injection: Injection = "parametric"
    route: Route = "lexical"
    max_active: int | None = Field(default=None, ge=1)
    others: Others | None = None
    strength: float | None = Field(default=None, gt=0.0)
    forgetting: float | None = Field(default=None, gt=0.0)
    conflicts: ConflictPolicy | None = None
    conflict_bound: float | None = Field(default=None, gt=0.0)
    conflict_overlap: float | None = Field(default=None, ge=-1.0, le=1.0)
    auto: AutoPolicy | None = None
    costs: Costs | None = None
    _service: PlacementService = PrivateAttr()
    _warned: bool = PrivateAttr(default=False)
    """Whether unused nodes were already logged at WARNING; later queries log them at INFO."""

    def __init__(
        self,
        *,
        llm: Any,
        missing: Missing = "train",
        injection: Injection = "parametric",
        store: Any = None,
        **options: Any,
    ) -> None:
        refuse_unknown_arguments(type(self), options, ("store",))
        if isinstance(llm, Mapping) and llm.get("class_name") == ParametricLLM.class_name():  # from_dict
            llm = ParametricLLM.from_dict(dict(llm))
        if not isinstance(llm, ParametricLLM):
            raise ConfigurationError(
                f"llm is a {type(llm).__name__}, which cannot use adapters: it would find meaningless references in "
                "its prompt. Pass the ParametricLLM that the query engine uses: ParametricLLM(lm=..., store=...)."
            )
        for name, value, known in (
            ("missing", missing, get_args(Missing)),
            ("injection", injection, get_args(Injection)),
            ("route", options.get("route", "lexical"), get_args(Route)),
        ):
            if value not in known:
                raise ConfigurationError(f"{name} is {value!r}; known: {', '.join(known)}")
        if store is not None and store is not llm.model.store:
            raise ConfigurationError("store is not the store of the LLM; leave it out, or pass llm.model.store")
        _refuse_what_it_cannot(llm.model, missing, injection)
        options |= {"llm": llm, "missing": missing, "injection": injection}
        if options.get("conflicts") is not None:
            known_policy(options["conflicts"])
        if injection == "auto":
            if missing != "train":
                raise ConfigurationError(f"missing is {missing!r}; injection='auto' decides itself, so leave it out")
        elif given := [name for name in ("auto", "costs") if options.get(name) is not None]:
            raise ConfigurationError(f"{', '.join(given)}: only for injection='auto', but injection is {injection!r}")
        super().__init__(**options)
        stray_markers.watch()
        reloaded.watch(llm.model.store)
        placer = Placer(
            llm.model,
            merge=llm.merge,
            max_active=self.max_active,
            others=self.others or ("omit" if injection == "parametric" else "context"),
            forgetting=self.forgetting,
            conflicts=self.conflicts,
            conflict_bound=self.conflict_bound,
            conflict_overlap=self.conflict_overlap,
            may_part=True,
        )
        self._service = PlacementService(
            llm.model,
            placer,
            missing=missing,
            route=self.route,
            beside=injection == "combined",
            strength=self.strength,
            chooser=AutoChooser(llm.model.local, self.auto, self.costs) if injection == "auto" else None,
            waiting=logger,
            progress=True,
            watch=dispatch,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in the serialised form."""
        return "ParametricNodePostprocessor"

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # The copy shares the model, and with it everything measured and made with the model.
        memo = {} if memo is None else memo
        memo[id(self._service)] = self._service
        return super().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex's pickling drops fields that cannot be pickled; a copy without its LLM would inject nothing.
        kept = [name for name, field in type(self).model_fields.items() if not field.exclude]
        return partial(type(self), **{name: getattr(self, name) for name in kept}), ()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        question = query_bundle.query_str if query_bundle else ""
        refuse_long_question(self.llm.model.lm, question)  # before anything is trained for it
        candidates = [_candidate(n) for n in nodes]
        plans = self._service.plan(candidates)
        made = self._service.prepare(candidates, question, plans)
        # The LLM multiplies the strengths by its own, so forgetting is measured at the strength that will act.
        placed = self._service.place(candidates, question, plans, times=self.llm.strength)
        event = self._event(candidates, plans, made, placed)
        dispatcher.event(event)
        self._log(placed, candidates)
        told = {"left_out": event.left_out} if event.left_out else {}
        found = []
        for i, (n, c, plan) in enumerate(zip(nodes, candidates, plans, strict=True)):
            scored = {} if placed.routing is None else {"score": placed.routing.scores[i]}
            if i in placed.strengths:
                key = self.llm.model.find(c.text) or self.llm.model.key(c.text)
                acting = injected(n, key, placed.strengths[i], beside_text=plan.beside)
                use = {"used": "adapter and text" if plan.beside else "adapter"}
                found.append(with_use(acting, use | scored | told))
            elif i not in placed.left_out:
                found.append(with_use(n, {"used": "text", "why": event.in_context.get(c.id, "")} | scored | told))
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        # Looking up adapters takes microseconds but training takes minutes, which must not block the event loop.
        return await in_own_thread(self._postprocess_nodes, nodes, query_bundle)

    def _event(
        self, candidates: Sequence[Candidate], plans: Sequence[PlacementPlan], made: MadeAdapters, placed: Placement
    ) -> AdaptersInjectedEvent:
        ids = [c.id for c in candidates]
        return AdaptersInjectedEvent(
            mode=self.injection,
            route=self.route,
            injected=[ids[i] for i in placed.in_weights],
            beside_text=[ids[i] for i in placed.in_weights if plans[i].beside],
            trained=made.trained,
            translated=sum(1 for i in placed.in_weights if not self.llm.model.knows(candidates[i].text)),
            in_context={ids[i]: made.failed.get(ids[i], why) for i, why in placed.in_prompt.items()},
            left_out={ids[i]: why for i, why in placed.left_out.items()},
            strength=placed.strength,
            forgetting=placed.forgetting,
            conflicts=placed.conflicts.to_dict() if placed.conflicts else None,
            routing=None if placed.routing is None else dict(zip(ids, placed.routing.scores, strict=True)),
            asked=_asked(ids, placed.routing),
        )

    def _log(self, placed: Placement, candidates: Sequence[Candidate]) -> None:
        """Log the nodes that have an adapter but do not act: at WARNING, but by default only at the first query."""
        reasons = {**placed.left_out, **placed.in_prompt}
        others = {candidates[i].id: why for i, why in reasons.items() if why != NO_ADAPTER}
        if not others:
            return
        asked = self.max_active is not None or placed.conflicts is not None
        level = logging.INFO if self._warned and not asked else logging.WARNING
        self._warned = True
        logger.log(
            level,
            "%d of %d retrieved nodes act through adapters; %d are left out, %d are in the prompt as text: %s",
            len(placed.in_weights),
            len(candidates),
            len(placed.left_out),
            len(placed.in_prompt),
            "; ".join(f"{node}: {why}" for node, why in others.items()),
        )


def _asked(ids: Sequence[str], routing: RoutingScores | None) -> dict[str, str] | None:
    if routing is None or not routing.answers:
        return None
    return {node: said for node, said in zip(ids, routing.answers, strict=True) if said is not None}


def _refuse_what_it_cannot(model: AdapterModel, missing: Missing, injection: Injection) -> None:
    if injection == "auto":
        model.check_weighing()
    model.check_missing(missing, _LACKING.get(missing, ""))


def _candidate(n: NodeWithScore) -> Candidate:
    node, document = n.node, n.node.ref_doc_id or n.node.node_id
    text, title = node.get_content(MetadataMode.NONE), title_of(node.metadata)
    return Candidate(node.node_id, text, title, document, document, n.score, node.metadata)
