"""The postprocessor: nodes stay what they are, and their text in prompts becomes a reference to their adapter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self, get_args

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from llamaindex_prag.adapter import AdapterKey, text_hash
from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.auto import AutoPolicy, Choice
from llamaindex_prag.conflict_policies import ConflictPolicy, date_of, known_policy
from llamaindex_prag.conflicts import OVERLAP
from llamaindex_prag.costs import Costs
from llamaindex_prag.demand import Chooser
from llamaindex_prag.llama_index import reloaded, stray_markers
from llamaindex_prag.llama_index.arguments import refuse_unknown_arguments
from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.llama_index.long_prompts import refuse_long_question
from llamaindex_prag.llama_index.nodes import injected, with_use
from llamaindex_prag.llama_index.training_events import dispatch
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.placing import NO_ADAPTER, Others, Placer, Placing, best
from llamaindex_prag.progress import WaitedFor
from llamaindex_prag.selection import BESIDE_TEXT
from rag_backbone.document_names import title_of
from rag_backbone.errors import AdapterError, ConfigurationError

Missing = Literal["train", "translate", "context", "error"]
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


@dataclass(frozen=True)
class _Plan:
    """What is to become of a node."""

    make: str = ""
    """`"train"` or `"translate"`: its adapter is made first."""
    beside: bool = False
    """Whether its text stands in the prompt beside the adapter."""
    in_context: str = ""
    """Why it has no adapter to use."""

    @classmethod
    def of(cls, choice: Choice, model: AdapterModel, text: str) -> _Plan:
        """By the policy's choice."""
        if choice.way == "context":
            return cls(in_context=choice.why)
        if choice.way == "translated":
            return cls(make="translate")
        return cls(make="" if model.knows(text) else "train", beside=choice.way == "combined")


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
            up to a minute (`llamaindex_prag.costs`).

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
    _placer: Placer = PrivateAttr()
    _chooser: Chooser | None = PrivateAttr(default=None)
    _parametrizer: Parametrizer | None = PrivateAttr(default=None)
    _hopeless: dict[str, str] = PrivateAttr(default_factory=dict)
    """By its text's hash, why a node cannot be learnt: trying takes long, so it is done once."""
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
        self._placer = Placer(
            llm.model, merge=llm.merge, max_active=self.max_active,
            others=self.others or ("omit" if inject == "parametric" else "context"), forgetting=self.forgetting,
            conflicts=self.conflicts, conflict_bound=self.conflict_bound, conflict_overlap=self.conflict_overlap,
            may_part=True,
        )  # fmt: skip
        if inject == "auto":
            self._chooser = Chooser(llm.model.local, self.auto, self.costs)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "ParametricNodePostprocessor"

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # What was made of the model is shared with the copy, as the model itself is.
        memo = {} if memo is None else memo
        memo |= {id(made): made for made in (self._placer, self._chooser, self._parametrizer) if made is not None}
        return super().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex's own pickling drops what cannot be pickled; a copy without its LLM would inject nothing.
        kept = [name for name, field in type(self).model_fields.items() if not field.exclude]
        return partial(type(self), **{name: getattr(self, name) for name in kept}), ()

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
    ) -> list[NodeWithScore]:
        model = self.llm.model
        question = query_bundle.query_str if query_bundle else ""
        refuse_long_question(model.lm, question)  # before anything is trained for it
        ids, texts = [n.node.node_id for n in nodes], [n.node.get_content(MetadataMode.NONE) for n in nodes]
        plans, trained = self._made(nodes, texts)
        placed = self._placed(nodes, texts, plans, question)
        kept = {i: plans[i].in_context or why for i, why in placed.in_prompt.items()}
        left_out = {ids[i]: why for i, why in placed.left_out.items()}
        dispatcher.event(
            AdaptersInjectedEvent(
                injected=[ids[i] for i in placed.in_weights],
                beside_text=[ids[i] for i in placed.in_weights if plans[i].beside],
                trained=trained,
                translated=sum(1 for i in placed.in_weights if not model.knows(texts[i])),
                in_context={ids[i]: why for i, why in kept.items()},
                left_out=left_out,
                strength=placed.strength,
                forgetting=placed.forgetting,
                conflicts=placed.conflicts.to_dict() if placed.conflicts else None,
            )
        )
        self._log(placed, ids)
        told = {"left_out": left_out} if left_out else {}
        found = []
        for i, n in enumerate(nodes):
            if i in placed.left_out:
                continue
            if i in placed.strengths:
                beside = plans[i].beside
                used = {"used": "adapter and text" if beside else "adapter"}
                key = model.find(texts[i]) or model.key(texts[i])
                n = injected(n, key, placed.strengths[i], beside_text=beside)  # noqa: PLW2901
            else:
                used = {"used": "text", "why": kept.get(i, "")}
            found.append(with_use(n, used | told))
        return found

    def _made(self, nodes: list[NodeWithScore], texts: list[str]) -> tuple[list[_Plan], int]:
        """Make the adapters of the nodes that are to act; return the plans, and how many were trained."""
        plans, trained = self._planned([n.node.node_id for n in nodes], texts), 0
        tried: set[int] = set()
        while True:  # of one that cannot be trained the next takes the place
            active = self._active(nodes, texts, plans)
            lacking = [i for i in active if plans[i].make == "train" and i not in tried and not self._known(texts[i])]
            if not lacking:
                break
            tried.update(lacking)
            trained += self._train([(nodes[i].node, texts[i]) for i in lacking])
            plans = [self._possible(plan, text) for plan, text in zip(plans, texts, strict=True)]
        translations = self.llm.model.translations
        read = [(nodes[i].node, texts[i]) for i in active if plans[i].make == "translate"]
        if read and translations is not None:
            translations.keep(_passages(read))
        return plans, trained

    def _active(self, nodes: list[NodeWithScore], texts: list[str], plans: list[_Plan]) -> list[int]:
        """Numbers of the nodes whose adapters are needed."""
        possible = [
            None if plan.in_context or not (plan.make or self._known(text)) else text_hash(text)
            for text, plan in zip(texts, plans, strict=True)
        ]
        return best(possible, [n.score for n in nodes], self._placer.candidates)

    def _log(self, placed: Placing, ids: list[str]) -> None:
        """Log which nodes have an adapter and do not act through it: at WARNING, one alone acting only once."""
        others = {ids[i]: why for i, why in [*placed.left_out.items(), *placed.in_prompt.items()] if why != NO_ADAPTER}
        if not others:
            return
        asked = self.max_active is not None or placed.conflicts is not None
        level = logging.INFO if self._warned and not asked else logging.WARNING
        self._warned = True
        logger.log(
            level, "%d of %d retrieved nodes act through adapters; %d are left out, %d stand in the prompt as text: %s",
            len(placed.in_weights), len(ids), len(placed.left_out), len(placed.in_prompt),
            "; ".join(f"{node}: {why}" for node, why in others.items()),
        )  # fmt: skip

    def _planned(self, ids: list[str], texts: list[str]) -> list[_Plan]:
        """What is to be made of each node."""
        if self._chooser is not None:
            plans = [
                _Plan.of(choice, self.llm.model, text)
                for choice, text in zip(self._chooser.choose(texts), texts, strict=True)
            ]
            return [self._possible(plan, text) for plan, text in zip(plans, texts, strict=True)]
        beside = self.inject == "combined"
        lacking = [i for i, text in enumerate(texts) if text.strip() and not self._known(text)]
        if lacking and self.missing == "error":
            raise AdapterError(
                f"{len(lacking)} of {len(texts)} retrieved nodes have no adapter, the first is {ids[lacking[0]]}. "
                "Parametrize them first (ParametrizeNodes, `dynprag parametrize`), or choose missing='train' or "
                "missing='context'."
            )
        make = self.missing if self.missing in ("train", "translate") else ""
        plans = [_Plan(beside=beside, in_context="" if text.strip() else "no text") for text in texts]
        plans = [replace(plan, make=make) if i in lacking else plan for i, plan in enumerate(plans)]
        return [self._possible(plan, text) for plan, text in zip(plans, texts, strict=True)]

    def _possible(self, plan: _Plan, text: str) -> _Plan:
        """In the prompt, if it is to be trained and cannot be."""
        reason = self._hopeless.get(text_hash(text)) if plan.make == "train" else None
        return plan if reason is None else _Plan(in_context=reason)

    def _placed(self, nodes: list[NodeWithScore], texts: list[str], plans: list[_Plan], question: str) -> Placing:
        # The LLM multiplies the strength by its own, so what is measured is what will act.
        own = self.llm.strength
        strengths = [own * (self.strength or (BESIDE_TEXT if plan.beside else 1.0)) for plan in plans]
        placed = self._placer.place(
            [self._key(text, plan) for text, plan in zip(texts, plans, strict=True)],
            question=question, strength=strengths, scores=[n.score for n in nodes],
            dates=[date_of(n.node.metadata) for n in nodes],
        )  # fmt: skip
        return replace(
            placed, strength=placed.strength / own, strengths={i: s / own for i, s in placed.strengths.items()}
        )

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        # Looking adapters up takes microseconds, training them minutes: neither blocks the loop.
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def _train(self, nodes: list[tuple[BaseNode, str]]) -> int:
        if not nodes:
            return 0
        if self._parametrizer is None:
            self._parametrizer = Parametrizer(self.llm.model.local)
        try:
            return self._trained(nodes)
        except ConfigurationError:  # of one of them; the others are not lost with it
            return sum(self._trained_alone(node) for node in nodes)

    def _trained_alone(self, node: tuple[BaseNode, str]) -> int:
        try:
            return self._trained([node])
        except ConfigurationError as error:
            self._hopeless[text_hash(node[1])] = str(error)
            return 0

    def _trained(self, nodes: list[tuple[BaseNode, str]]) -> int:
        assert self._parametrizer is not None
        report = self._parametrizer.parametrize(_passages(nodes), watch=WaitedFor(logger, dispatch))
        for _, text in nodes:
            if not self.llm.model.knows(text):
                self._hopeless[text_hash(text)] = "; ".join(report.notes.get(text_hash(text), ("no adapter was made",)))
        return report.trained

    def _known(self, text: str) -> bool:
        return self.llm.model.find(text) is not None

    def _key(self, text: str, plan: _Plan) -> AdapterKey | None:
        """The key of a node's adapter, also of one that is not made because other nodes act."""
        if plan.in_context:
            return None
        return self.llm.model.find(text) or (self.llm.model.key(text) if plan.make else None)


def _refuse_what_it_cannot(model: AdapterModel, missing: Missing, inject: Inject) -> None:
    if inject == "auto":
        model.check_weighing()
    model.check_missing(missing, _LACKING.get(missing, ""))


def _passages(nodes: list[tuple[BaseNode, str]]) -> list[Passage]:
    return [Passage(text, title_of(n.metadata), n.ref_doc_id or n.node_id) for n, text in nodes]
