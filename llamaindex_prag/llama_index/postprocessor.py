"""The postprocessor: nodes stay what they are, and their text in prompts becomes a reference to their adapter."""

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
from llamaindex_prag.guards.conflicts import OVERLAP
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
from llamaindex_prag.placement.service import Missing, PlacementService
from rag_backbone.aio import in_own_thread
from rag_backbone.documents.names import title_of
from rag_backbone.errors import ConfigurationError

Inject = Literal["parametric", "combined", "auto"]
_LACKING: dict[Missing, str] = {
    "translate": ", and the LLM has none; give it one, ParametricLLM(translator=...), or use missing='train'",
    "train": "; name the model that the server runs, ParametricLLM(lm=...), or choose missing='context'",
}
dispatcher = get_dispatcher(__name__)
logger = logging.getLogger(__name__)


class AdaptersInjectedEvent(BaseEvent):
    """Which nodes a query answers from its weights, and which stayed in the prompt."""

    injected: list[str]
    """Ids of the nodes whose adapters are used."""
    beside_text: list[str] = Field(default_factory=list)
    """Those of them whose text stands in the prompt too."""
    trained: int
    """How many of them were trained for this query."""
    translated: int = 0
    """How many of them are translated, not trained."""
    strength: float = 1.0
    """What multiplies their updates, after the guard."""
    forgetting: float | None = None
    """What they change of unrelated answers at that strength, nats a token; None: not measured."""
    in_context: dict[str, str]
    """Ids of the nodes whose text stays in the prompt, and why."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Ids of the nodes that are not used, and why."""
    conflicts: dict[str, Any] | None = None
    """`Conflicts.to_dict()`; None: not measured."""

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "AdaptersInjectedEvent"


class ParametricNodePostprocessor(BaseNodePostprocessor):
    """Lets the LLM answer from the retrieved documents' adapters instead of their text.

    One node acts, the best-scored (of equal or missing scores the first): merged adapters weaken each other, so that
    retrieving two would halve the effect. What became of each node is in the event, in the log, and in the metadata of
    `response.source_nodes` under `"dynprag"`, which prompts leave out.

    Put it last: postprocessors that read or rewrite the text have to stand before it. The query engine needs the same
    `llm`; an error is logged where references come to another one. `response_mode="context_only"` returns what prompts
    hold: the references.

    Args:
        llm: The `ParametricLLM` that the query engine uses.
        missing: What becomes of a node without an adapter: `"train"` it now, `"translate"` it (the LLM needs a
            translator), leave its text in the `"context"`, or raise an `"error"`. What cannot be trained (it is too
            long, it diverges, the store is read-only) stays in the prompt, and is not tried again. While a query waits
            for training, a warning tells of which document and for how long about, a bar on stderr shows how far it
            is, and `AdapterTrainingEvent`s go to LlamaIndex's event handlers.
        inject: `"parametric"`: no text in the prompt. `"combined"`: adapter and text. `"auto"`: for each node the
            cheapest way that `auto` allows: in context, by its trained or translated adapter, or both; `missing` is
            not used then.
        max_active: How many nodes act through their adapters at once, the best-scored first. None: 1; with `conflicts`,
            whose policies are about several documents, as many as the LLM's `max_adapters`.
        others: Where the other nodes that have an adapter go: `"omit"` leaves them out of the query, `"context"` puts
            their text into the prompt. None: `"omit"` with `inject="parametric"`, else `"context"`.
        strength: Multiplies the updates. None: 1, and 0.1 beside a text, where at full strength they disturb its
            reading more than they add (docs/results-parametric.md).
        forgetting: The most that the adapters may change the model's answers to unrelated questions, in nats a token
            (`ForgettingGuard`, which costs a short forward for each new set of nodes); `forgetting.BOUND`
            (0.01) is safe. Above it they are weakened; if that is not enough, the text stays in the prompt. None: not
            measured.
        conflicts: What becomes of nodes that contradict each other about the question (`ConflictMeter`, which has each
            adapter answer it alone): `"mean"` of their updates, `"score-weighted"`, the `"latest"` by its metadata, or
            their texts in the `"context"`. None: not measured.
        conflict_bound: Above so many nats two nodes contradict each other.
        conflict_overlap: Nodes whose updates have a smaller cosine are about different things, and never do; None: not
            looked at.
        auto: What `inject="auto"` has to keep to (quality, seconds); None: `AutoPolicy()`.
        costs: What things cost on this machine; None: measured when the postprocessor is first made on it, which takes
            up to a minute (`llamaindex_prag.placement.costs`).

    Example:
        >>> query_engine = index.as_query_engine(
        ...     llm=llm, node_postprocessors=[ParametricNodePostprocessor(llm=llm)]
        ... )  # doctest: +SKIP
    """

    llm: ParametricLLM
    missing: Missing = "train"
    inject: Inject = "parametric"
    max_active: int | None = Field(default=None, ge=1)
    others: Others | None = None
    strength: float | None = Field(default=None, gt=0.0)
    forgetting: float | None = Field(default=None, gt=0.0)
    conflicts: ConflictPolicy | None = None
    conflict_bound: float | None = Field(default=None, gt=0.0)
    conflict_overlap: float | None = Field(default=OVERLAP, ge=-1.0, le=1.0)
    auto: AutoPolicy | None = None
    costs: Costs | None = None
    _service: PlacementService = PrivateAttr()
    _warned: bool = PrivateAttr(default=False)
    """Whether it was logged at WARNING that one node acts; afterwards it is INFO."""

    def __init__(
        self, *, llm: Any, missing: Missing = "train", inject: Inject = "parametric", store: Any = None, **options: Any
    ) -> None:
        refuse_unknown_arguments(type(self), options, ("store",))
        if isinstance(llm, Mapping) and llm.get("class_name") == ParametricLLM.class_name():  # from_dict
            llm = ParametricLLM.from_dict(dict(llm))
        if not isinstance(llm, ParametricLLM):
            raise ConfigurationError(
                f"llm is a {type(llm).__name__}, which cannot use adapters: it would find meaningless references in "
                "its prompt. Give the ParametricLLM that the query engine uses: ParametricLLM(lm=..., store=...)."
            )
        for name, value, known in (("missing", missing, get_args(Missing)), ("inject", inject, get_args(Inject))):
            if value not in known:
                raise ConfigurationError(f"{name} is {value!r}; known: {', '.join(known)}")
        if store is not None and store is not llm.model.store:
            raise ConfigurationError("store is not the LLM's own; leave it out, or give llm.model.store")
        _refuse_what_it_cannot(llm.model, missing, inject)
        options |= {"llm": llm, "missing": missing, "inject": inject}
        if options.get("conflicts") is not None:
            known_policy(options["conflicts"])
        if inject == "auto":
            if missing != "train":
                raise ConfigurationError(f"missing is {missing!r}; inject='auto' decides itself, so leave it out")
        elif given := [name for name in ("auto", "costs") if options.get(name) is not None]:
            raise ConfigurationError(f"{', '.join(given)}: only for inject='auto', and inject is {inject!r}")
        super().__init__(**options)
        stray_markers.watch()
        reloaded.watch(llm.model.store)
        placer = Placer(
            llm.model,
            merge=llm.merge,
            max_active=self.max_active,
            others=self.others or ("omit" if inject == "parametric" else "context"),
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
            beside=inject == "combined",
            strength=self.strength,
            chooser=AutoChooser(llm.model.local, self.auto, self.costs) if inject == "auto" else None,
            waiting=logger,
            progress=True,
            watch=dispatch,
        )

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "ParametricNodePostprocessor"

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # What was measured and made with the model is shared with the copy, as the model itself is.
        memo = {} if memo is None else memo
        memo[id(self._service)] = self._service
        return super().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex's own pickling drops what cannot be pickled; a copy without its LLM would inject nothing.
        kept = [name for name, field in type(self).model_fields.items() if not field.exclude]
        return partial(type(self), **{name: getattr(self, name) for name in kept}), ()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        question = query_bundle.query_str if query_bundle else ""
        refuse_long_question(self.llm.model.lm, question)  # before anything is trained for it
        candidates = [_candidate(n) for n in nodes]
        plans = self._service.plan(candidates)
        made = self._service.prepare(candidates, plans)
        # The LLM multiplies the strengths by its own, so what is measured is what will act.
        placed = self._service.place(candidates, question, plans, times=self.llm.strength)
        event = self._event(candidates, plans, made, placed)
        dispatcher.event(event)
        self._log(placed, candidates)
        told = {"left_out": event.left_out} if event.left_out else {}
        found = []
        for i, (n, c, plan) in enumerate(zip(nodes, candidates, plans, strict=True)):
            if i in placed.strengths:
                key = self.llm.model.find(c.text) or self.llm.model.key(c.text)
                acting = injected(n, key, placed.strengths[i], beside_text=plan.beside)
                found.append(with_use(acting, {"used": "adapter and text" if plan.beside else "adapter"} | told))
            elif i not in placed.left_out:
                found.append(with_use(n, {"used": "text", "why": event.in_context.get(c.id, "")} | told))
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        # Looking adapters up takes microseconds, training them minutes: neither blocks the loop.
        return await in_own_thread(self._postprocess_nodes, nodes, query_bundle)

    def _event(
        self, candidates: Sequence[Candidate], plans: Sequence[PlacementPlan], made: MadeAdapters, placed: Placement
    ) -> AdaptersInjectedEvent:
        ids = [c.id for c in candidates]
        return AdaptersInjectedEvent(
            injected=[ids[i] for i in placed.in_weights],
            beside_text=[ids[i] for i in placed.in_weights if plans[i].beside],
            trained=made.trained,
            translated=sum(1 for i in placed.in_weights if not self.llm.model.knows(candidates[i].text)),
            in_context={ids[i]: made.failed.get(ids[i], why) for i, why in placed.in_prompt.items()},
            left_out={ids[i]: why for i, why in placed.left_out.items()},
            strength=placed.strength,
            forgetting=placed.forgetting,
            conflicts=placed.conflicts.to_dict() if placed.conflicts else None,
        )

    def _log(self, placed: Placement, candidates: Sequence[Candidate]) -> None:
        """Log which nodes have an adapter and do not act through it: at WARNING, one alone acting only once."""
        reasons = {**placed.left_out, **placed.in_prompt}
        others = {candidates[i].id: why for i, why in reasons.items() if why != NO_ADAPTER}
        if not others:
            return
        asked = self.max_active is not None or placed.conflicts is not None
        level = logging.INFO if self._warned and not asked else logging.WARNING
        self._warned = True
        logger.log(
            level,
            "%d of %d retrieved nodes act through adapters; %d are left out, %d stand in the prompt as text: %s",
            len(placed.in_weights),
            len(candidates),
            len(placed.left_out),
            len(placed.in_prompt),
            "; ".join(f"{node}: {why}" for node, why in others.items()),
        )


def _refuse_what_it_cannot(model: AdapterModel, missing: Missing, inject: Inject) -> None:
    if inject == "auto":
        model.check_weighing()
    model.check_missing(missing, _LACKING.get(missing, ""))


def _candidate(n: NodeWithScore) -> Candidate:
    node, document = n.node, n.node.ref_doc_id or n.node.node_id
    text, title = node.get_content(MetadataMode.NONE), title_of(node.metadata)
    return Candidate(node.node_id, text, title, document, document, n.score, node.metadata)
