"""Documents' adapters as evidence: the only module of this package that needs `llamaindex_prag`.

- `ParametricInjector` does with retrieved passages what a graph with `injection="parametric"` or `"combined"` promises.
- `WeightsPrompt` asks in the words that adapters are trained with.
- `opened_injector` opens model, store and translator for the command line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langgraph_dynrag.evidence import Passage, name_of, original_hash
from langgraph_dynrag.injection.injector import PlacedEvidence, PreparedEvidence
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.streaming import emit
from rag_backbone.checks import suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for
from rag_backbone.typed_fields import check_value

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import AdapterModel as AdapterModel  # noqa: PLC0414 - for `graph`
    from llamaindex_prag.adapters.active_adapters import Merge
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.placement.candidate import Candidate
    from llamaindex_prag.placement.routing import Route
    from llamaindex_prag.progress import JobStatus
    from rag_backbone.engine.adapters import Ensemble

logger = logging.getLogger(__name__)

IntoWeights = Literal["parametric", "combined"]
Missing = Literal["train", "translate", "context"]

_MAX_ADAPTERS = 8
"""Maximum number of adapters in a call of the command line."""
_LACKING: dict[Missing, str] = {
    "translate": ", and these adapters have none: ParametricModel.of(lm, store, translator=...)",
    "train": ", and these adapters know a server's address only: ServedModel(..., lm=...), or missing='context'",
}


@dataclass(frozen=True)
class WeightsPrompt(AnswerPrompt):
    """The prompt that adapters are trained with: it asks for a short answer, and the whole text is the answer.

    Meant for graphs with `injection="parametric"` and single-hop questions: it has about 40 tokens, which every resume
    reads again, where a preset's worked examples have about 500. Answers from the weights were equally good under both
    (docs/results-parametric.md). Exemplars would change the prompt and are refused.
    """

    answer_phrase: str | None = None
    stop: tuple[str, ...] = ("\n",)

    def __post_init__(self) -> None:
        if self.exemplars:
            raise ConfigurationError(
                "adapters are trained without exemplars, so WeightsPrompt takes none; use AnswerPrompt for them"
            )

    def messages(self, question: str, passages: Sequence[Passage]) -> list[BaseMessage]:
        """Return instruction and question, with the passages that have no adapter between them."""
        from llamaindex_prag.prompts import INSTRUCTION, user_text

        text = user_text(question, [p["text"] for p in passages])
        return [SystemMessage(INSTRUCTION), HumanMessage(text.removeprefix(INSTRUCTION).lstrip())]


class ParametricInjector:
    """Places passages in the parameters of one model, for one run at a time.

    Args:
        adapters: The model with its store and recipe, in this process or in a server.
        injection: `"parametric"`: no text of the passages stands in the prompt. `"combined"`: their texts do as well.
        missing: How a passage without an adapter is handled: `"train"` one now (about a minute), `"translate"` it with
            the model's translator (milliseconds), or leave it in the `"context"`.
        strength: Factor on the updates. None: 1, or 0.1 if the text stands in the prompt too.
        route: How the passages that act are chosen: `"lexical"`, by their retrieval scores and the words that they
            share with the question; by their `"retrieval"` scores alone; or `"ask"`, by what their adapters answer. The
            text of all passages is used instead if none has a sentence that names what is asked for (`"lexical"`), or
            none answers better than the base model (`"ask"`).
        merge: How the updates are combined if several passages act: their `"mean"`, `"sum"`, `"score"`-weighted sum,
            `"orthogonal"` parts, or the sum with the recipe's start added once (`"shared_once"`).
        ensemble: Lets each adapter answer alone instead, and mixes their next-token distributions: `"mixture"` or
            `"product"`. Such a draft has no attention, so a graph that reads it refuses it. None: updates are merged.
        max_active: How many passages act through their adapters at once, best-scored first. None: 1, because merged
            adapters weaken each other; with `conflicts`, as many as a call may use.
        others: Where the other passages that have an adapter go: `"omit"` leaves them out, `"context"` puts them into
            the prompt. None: `"omit"` with `injection="parametric"`, else `"context"`.
        forgetting: The most that the adapters may change the model's answers to unrelated questions, in nats per token;
            `llamaindex_prag.guards.forgetting.BOUND` (0.01) is safe. Above it they are weakened, or the passages go
            into the prompt. None: not measured.
        conflicts: How passages that contradict each other about the question are handled: `"mean"`,
            `"score-weighted"`, `"latest"` or `"context"`; see `llamaindex_prag.guards.conflict_policies`. None: not
            measured.
        conflict_bound: Two passages contradict each other above this many nats. None:
            `llamaindex_prag.guards.conflicts.BOUND`.
        conflict_overlap: Passages whose updates have a smaller cosine are about different things and never contradict
            each other. None: `llamaindex_prag.guards.conflicts.OVERLAP`; -1 compares all.
        progress: Whether to show a progress bar while adapters are trained.

    Raises:
        ConfigurationError: If an option is unknown, `missing="translate"` lacks a translator, or the adapters cannot be
            combined in this way (`AdapterModel.check_strategy`).
    """

    def __init__(
        self,
        adapters: AdapterModel,
        *,
        injection: IntoWeights = "parametric",
        missing: Missing = "train",
        strength: float | None = None,
        route: Route = "lexical",
        merge: Merge = "mean",
        ensemble: Ensemble | None = None,
        max_active: int | None = None,
        others: Literal["omit", "context"] | None = None,
        forgetting: float | None = None,
        conflicts: str | None = None,
        conflict_bound: float | None = None,
        conflict_overlap: float | None = None,
        progress: bool = False,
    ) -> None:
        from llamaindex_prag.placement.placer import Placer
        from llamaindex_prag.placement.service import PlacementService

        for name, value, known in (
            ("injection", injection, get_args(IntoWeights)),
            ("missing", missing, get_args(Missing)),
        ):
            if value not in known:
                near = suggestion(str(value), known)
                raise ConfigurationError(f"{name} is {value!r}{near}; known: {', '.join(known)}")
        check_value("forgetting", forgetting, float | None)
        adapters.check_missing(missing, _LACKING.get(missing, ""))
        self.adapters = adapters
        self.injection: IntoWeights = injection
        self.missing = missing
        self.ensemble = ensemble
        placer = Placer(
            adapters,
            merge=merge,
            ensemble=ensemble,
            max_active=max_active,
            others=others or ("omit" if injection == "parametric" else "context"),
            forgetting=forgetting,
            conflicts=conflicts,
            conflict_bound=conflict_bound,
            conflict_overlap=conflict_overlap,
        )
        self._service = PlacementService(
            adapters,
            placer,
            missing=missing,
            beside=injection == "combined",
            strength=strength,
            route=route,
            waiting=logger,
            watch=_emit_training,
            progress=progress,
        )

    def prepare(self, passages: Sequence[Passage], question: str = "") -> PreparedEvidence:
        """Create missing adapters of the passages that act for this question.

        A question that waits for training is announced: a warning names the documents and the estimated time, and the
        graph's `custom` stream has an event `"training"` at the start and a few times per second
        (`llamaindex_prag.progress.JobStatus`).
        """
        made = self._service.prepare([_candidate(p) for p in passages], question)
        done = PreparedEvidence(
            trained=made.trained, translated=made.translated, failed=made.failed, seconds=made.seconds
        )
        if made.waited_for:
            done["training"] = {"documents": made.waited_for, "estimated": made.estimated}
        return done

    def place(self, passages: Sequence[Passage], question: str = "") -> PlacedEvidence:
        """Return where each passage acts: through its adapter if it is among the best-scored that have one."""
        placed = self._service.place([_candidate(p) for p in passages], question)
        acting: Any = placed.ensemble
        if acting is None and placed.selection is not None:
            acting = self.adapters.runnable(placed.selection)
        ids = [p["id"] for p in passages]
        shown = placed.in_prompt if self.injection == "parametric" else set(range(len(passages))) - set(placed.left_out)
        return PlacedEvidence(
            in_prompt=[passages[i] for i in sorted(shown)],
            adapters=acting,
            in_weights=tuple(ids[i] for i in placed.in_weights),
            reasons={ids[i]: why for i, why in placed.in_prompt.items()},
            strength=placed.strength,
            forgetting=placed.forgetting,
            left_out={ids[i]: why for i, why in placed.left_out.items()},
            conflicts=placed.conflicts.to_dict() if placed.conflicts else None,
            routing=None if placed.routing is None else dict(zip(ids, placed.routing.scores, strict=True)),
        )

    def __repr__(self) -> str:
        return f"ParametricInjector({self.adapters!r}, injection={self.injection!r}, missing={self.missing!r})"


def _candidate(p: Passage) -> Candidate:
    from llamaindex_prag.placement.candidate import Candidate

    document = p["source"] or p["id"]
    return Candidate(p["id"], p["text"], p["title"], document, name_of(p), p["score"], p["metadata"], original_hash(p))


def _emit_training(advance: JobStatus) -> None:
    emit({"type": "training", **advance.to_dict()})


@contextmanager
def opened_injector(
    model: str,
    store: str | Path,
    *,
    injection: IntoWeights,
    missing: Missing | None = None,
    route: Route = "lexical",
    merge: Merge = "mean",
    ensemble: Ensemble | None = None,
    max_active: int | None = None,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    translator: str | None = None,
    chat: BaseChatModel | None = None,
    base_url: str | None = None,
    progress: bool = False,
) -> Iterator[tuple[BaseChatModel, ParametricInjector]]:
    """Open a model with the adapters of one store, as a chat model and an injector for the same graph.

    Args:
        model: `"embedded"`, a folder or a Hub id; or the name of the server's model.
        store: Folder or URL of the adapters.
        injection: `"parametric"` or `"combined"`.
        missing: As for `ParametricInjector`. None: `"translate"` with a translator, `"context"` with a server, else
            `"train"`.
        route: As for `ParametricInjector`.
        merge: As for `ParametricInjector`.
        ensemble: As for `ParametricInjector`.
        max_active: As for `ParametricInjector`.
        recipe: Name of the adapters' recipe. None: the translator's, or `distill`.
        changes: Changed values of the recipe, as NAME=VALUE.
        translator: Folder of a translator.
        chat: The server's chat model; None for a model in this process.
        base_url: The address of vLLM or of llama.cpp's server; None for a model in this process.
        progress: Whether to show a progress bar while adapters are trained.

    Raises:
        ConfigurationError: If `llamaindex_prag`'s dependencies are missing, the options do not fit together, or the
            store's adapters are all of other recipes, unless `missing="train"` or a translator makes new ones.
        AdapterError: If `merge="shared_once"` and the store does not hold the recipe's start.
        TranslatorError: If the translator's folder has no checkpoint.
    """
    with needed_for("injection"):
        from llamaindex_prag.adapters.recipe import get_recipe
        from llamaindex_prag.adapters.recipe_options import changes_of
        from llamaindex_prag.adapters.strategies import active_limit, check_strategy
        from llamaindex_prag.errors import NO_TRANSLATOR
        from llamaindex_prag.parametric_model import ParametricModel
        from llamaindex_prag.serving.connecting import connected
        from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
        from llamaindex_prag.store.opening import open_store
        from llamaindex_prag.translator import checkpoint
        from llamaindex_prag.translator.translator import Translator
        from rag_backbone.loading.causal_lm import CausalLM
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel

    if missing == "translate" and translator is None:
        raise ConfigurationError(f"missing='translate' needs a translator: --translator FOLDER. {NO_TRANSLATOR}")
    if translator is not None and (recipe is not None or changes):
        raise ConfigurationError("a translator's adapters have its own recipe; leave out --recipe and --change")
    chosen = get_recipe(recipe or "distill").changed(**changes_of(changes))
    check_strategy(chosen, merge, ensemble, in_server=base_url is not None)
    active_limit(max_active, merge, None, _MAX_ADAPTERS)
    trains = missing == "train" or translator is not None
    _check_store(store, chosen, None if base_url is not None else model, shared=merge == "shared_once", trains=trains)
    combining: Any = {"route": route, "merge": merge, "ensemble": ensemble, "max_active": max_active}
    adapters: AdapterModel
    if chat is not None and base_url is not None:
        if translator is not None:
            raise ConfigurationError(
                "a translator needs the model in this process; leave out --base-url or --translator"
            )
        with open_store(store, model=None) as opened:
            adapters = connected(base_url, opened, model=model, recipe=chosen, max_adapters=_MAX_ADAPTERS)
            if isinstance(adapters, LlamaCppModel):
                chat = chat.model_copy(update={"extra_body": adapters.no_adapters})
            yield chat, ParametricInjector(adapters, injection=injection, missing=missing or "context", **combining)
        return
    if translator is not None:
        checkpoint.require(translator)
    lm = CausalLM.from_pretrained(model)
    loaded = None if translator is None else Translator.load(translator, lm)
    with open_store(store, model=lm.fingerprint) as opened:
        made_by = chosen if loaded is None else loaded.config.recipe
        adapters = ParametricModel.of(lm, opened, recipe=made_by, max_adapters=_MAX_ADAPTERS, translator=loaded)
        yield (
            LocalChatModel.from_causal_lm(lm),
            ParametricInjector(
                adapters,
                injection=injection,
                missing=missing or ("train" if loaded is None else "translate"),
                progress=progress,
                **combining,
            ),
        )


def _check_store(store: str | Path, recipe: Recipe, model: str | None, *, shared: bool, trains: bool) -> None:
    """Refuse a store that lacks the adapters of a recipe, before the model (None: a server's) is loaded.

    Args:
        store: Its folder.
        recipe: The recipe.
        model: Name of the model; None for a server's.
        shared: Whether the recipe's start is needed.
        trains: Whether adapters are made, so that the store need not have any.
    """
    from llamaindex_prag.adapters.recipe_options import refuse_other_recipes
    from llamaindex_prag.adapters.start import start_key
    from llamaindex_prag.augment.choice import settled
    from llamaindex_prag.errors import StoreError
    from llamaindex_prag.store.opening import is_url, open_store

    if not (is_url(store) or Path(store).exists()):
        if shared:
            start_key({}, recipe)
        return
    advice = "Give the options of one of them" + (
        "." if model is None else ", or --missing train for new adapters of this recipe."
    )
    with suppress(StoreError), open_store(store, model=None, readonly=True) as opened:  # refused again when it is used
        if shared:
            start_key(opened, recipe)
        if not trains:
            refuse_other_recipes(opened, settled(recipe, model, opened.keys), advice)
