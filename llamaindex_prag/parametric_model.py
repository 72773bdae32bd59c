"""A language model with the adapters of one recipe, which answers from documents in its weights.

The frameworks' classes are thin shells around this one. It combines model, store and bank, finds adapters by the text
that they were trained on, and runs requests with them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llamaindex_prag.adapter_model import LocalModel
from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.adapters.recipe import Recipe, get_recipe
from llamaindex_prag.adapters.source import ReadableStore
from llamaindex_prag.adapters.stacking import stacked
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.augment.choice import settled
from llamaindex_prag.parametric_answer import ParametricAnswer
from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.checks import shown
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.extras import needed_for

if TYPE_CHECKING:
    from peft import PeftModel

    from llamaindex_prag.placement.routing import DocumentRoute
    from llamaindex_prag.translator.translations import Translations
    from llamaindex_prag.translator.translator import Translator
    from rag_backbone.engine.adapters import Ensemble
    from rag_backbone.engine.ensemble import AdapterEnsemble
    from rag_backbone.loading.causal_lm import CausalLM


# Weak on both sides, because a parametric model keeps its base model alive.
_made: weakref.WeakKeyDictionary[CausalLM, weakref.ref[ParametricModel]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


class ParametricModel(LocalModel):
    """A model that can answer from stored adapters.

    Use `ParametricModel.of`, which returns the same object to all users of a model and attaches it to the engine. An
    instance that is created directly can train and measure; call `attach()` before it answers from adapters.

    Args:
        lm: The base model.
        store: The store of its adapters.
        recipe: The recipe that trains the adapters.
        max_adapters: Maximum number of documents per call.
        slots: Maximum number of different selections in memory.
        translator: Produces adapters for documents without a trained one, in the recipe's layout.

    Raises:
        ConfigurationError: If the store belongs to another model, the model has no layers that the recipe names, or
            the translator's adapters have another layout.
    """

    lm: CausalLM

    def __init__(
        self,
        lm: CausalLM,
        store: ReadableStore,
        *,
        recipe: str | Recipe = "distill",
        max_adapters: int = 8,
        slots: int = 16,
        translator: Translator | None = None,
    ) -> None:
        self.lm = lm
        asked = get_recipe(recipe)
        self.store = store
        self.recipe = settled(asked, lm)
        self.augmentation_asked = asked.augmentation
        """The recipe's `augmentation` as the user gave it."""
        if store.model != lm.fingerprint:
            raise ConfigurationError(
                f"the store holds adapters of the model {store.model[:12]}…, but {lm.name} is {lm.fingerprint[:12]}…. "
                "Adapters fit only the model that they were trained on; use that model, or another store."
            )
        self.layout = layout_of(lm.model, rank=self.recipe.rank, targets=self.recipe.targets, layers=self.recipe.layers)
        self.max_adapters = max_adapters
        self.translations = self._translations(translator)
        source = self.translations or store
        self.bank = AdapterBank(lm.model, self.layout, source, max_adapters=max_adapters, slots=slots)

    def attach(self) -> Self:
        """Make the engine of `lm` apply this model's adapters, instead of those of a model attached earlier.

        Returns:
            The model itself.
        """
        self.lm.engine.attach(self.bank)
        return self

    def _translations(self, translator: Translator | None) -> Translations | None:
        if translator is None:
            return None
        self.recipe.check_plain("a translator")
        from llamaindex_prag.translator.translations import Translations

        if translator.config.layout != self.layout:
            raise ConfigurationError(
                f"the translator produces adapters of {translator.config.layout!r}, but the recipe "
                f"{self.recipe.name!r} has {self.layout!r}. Use recipe={translator.config.recipe.name!r}, which it was "
                "trained for."
            )
        return Translations(self.store, translator)

    @classmethod
    def of(
        cls,
        lm: CausalLM,
        store: ReadableStore,
        *,
        recipe: str | Recipe = "distill",
        max_adapters: int = 8,
        translator: Translator | None = None,
    ) -> Self:
        """Return the one parametric model of `lm`: the first call creates and attaches it, later calls return it again.

        Raises:
            ConfigurationError: If the existing one has another store, recipe, number of adapters or translator.
        """
        with _making:
            known = made() if (made := _made.get(lm)) else None
            if known is None:
                known = cls(lm, store, recipe=recipe, max_adapters=max_adapters, translator=translator).attach()
                _made[lm] = weakref.ref(known)
            same = known.recipe == settled(get_recipe(recipe), lm) and known.max_adapters == max_adapters
            same &= known.translator_key == (translator.fingerprint if translator else None)
            if not (same and _same_store(known.store, store)):
                raise ConfigurationError(
                    f"{lm.name} already answers from {known!r}; one model in memory has one store, recipe, number of "
                    "adapters and translator. Load the model a second time to use others."
                )
            assert isinstance(known, cls)
            return known

    @property
    def local(self) -> Self:
        """The model that trains adapters and measures their effect: this one."""
        return self

    def check_chat_model(self, chat: object) -> None:
        """Refuse a chat model that generates with another model in memory."""
        if getattr(chat, "lm", None) is not self.lm:
            raise ConfigurationError(
                "the adapters belong to another model in memory: create the chat model with "
                "LocalChatModel.from_causal_lm(adapters.lm)"
            )

    def _selected(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        return self.bank.select(keys, acts_from=self.recipe.acts_from, **options)

    def answer(
        self,
        question: str,
        *,
        documents: Sequence[str | AdapterKey] = (),
        passages: Sequence[str] = (),
        merge: Merge = "mean",
        ensemble: Ensemble | None = None,
        scores: Sequence[float] | None = None,
        route: DocumentRoute | None = None,
        max_active: int | None = None,
        strength: float = 1.0,
        max_new_tokens: int = 48,
    ) -> ParametricAnswer:
        """Generate a short answer.

        Args:
            question: The question.
            documents: Passages whose adapters are used, trained ones before translated ones, or the adapters' keys.
                Their text does not enter the prompt.
            passages: Passages that do enter the prompt.
            merge: How the updates of several adapters are combined.
            ensemble: Let each adapter answer alone instead, and mix their next-token distributions: `"mixture"`, the
                weighted mean, or `"product"`, the weighted geometric mean.
            scores: The documents' retrieval scores, for `merge="score"` and as weights of an ensemble (their softmax).
                None for equal weights.
            route: Choose among the documents the one that the question is about: by their retrieval `scores`
                (`"retrieval"`; without scores, the first), by these and the words that they share with the question
                (`"lexical"`, `"unsure"`), or by what their adapters answer (`"ask"`). If no document has a sentence
                that names what is asked for (`"lexical"`), the base model is sure of its own answer (`"unsure"`), or no
                adapter answers better (`"ask"`), none acts, and the base model answers from `passages` alone. None:
                all documents act.
            max_active: Maximum number of documents that a route chooses; None for 1.
            strength: A factor for the adapters' updates.
            max_new_tokens: Token limit at which the answer is truncated.

        Returns:
            The answer, without a lead or quotes: a string that also says which documents were used, and why.

        Raises:
            AdapterError: If there are more documents than a call may use, one has no adapter or is an adapter of
                another model or recipe, or the scores do not fit.
            ConfigurationError: If a strategy is unknown, or not possible with this model and these documents, or there
                are both a `merge` and an `ensemble`.
        """
        self.check_strategy(merge, ensemble)
        keys = self._keys(documents)
        used, found_scores, why = tuple(range(len(keys))), tuple[float | None, ...](), ""
        if route is not None:
            from llamaindex_prag.placement.choosing import choose_documents

            chosen = choose_documents(
                self,
                question,
                documents,
                keys,
                route=route,
                scores=scores,
                max_active=1 if max_active is None else max_active,
            )
            used, found_scores, why = chosen.acting, chosen.scores, chosen.why
            keys, scores = [keys[i] for i in used], None if scores is None else [scores[i] for i in used]
        elif max_active is not None:
            raise ConfigurationError(
                f"max_active is {max_active}, but there is no route, so all documents act; add one"
            )
        acting: ActiveAdapters | AdapterEnsemble | None
        if ensemble is None:
            acting = self.select(keys, merge=merge, scores=scores, strength=strength)
        else:
            acting = self.ensemble(keys, kind=ensemble, scores=scores, strength=strength)
        ids = prompt_ids(self.lm.tokenizer, question, passages)
        found = self.lm.engine.generate(Request(ids, max_new_tokens, adapters=acting))
        return ParametricAnswer(clean_answer(found.text), used, found_scores, why)

    def to_peft(
        self,
        documents: Sequence[str | AdapterKey],
        *,
        merge: Merge = "mean",
        scores: Sequence[float] | None = None,
        strength: float = 1.0,
    ) -> PeftModel:
        """Return a `PeftModel` that computes the same logits as this model with the adapters of these documents.

        The adapters are merged into one LoRA adapter, of rank k * rank for k documents. The `PeftModel` has its own
        modules and shares the weights of the base model. Training or merging its adapter, moving it to a device or
        converting its dtype does not change the base model. Only writing into the base weights in place changes both
        models: training them, which are frozen, or merging through `PeftModel.base_model`.

        Args:
            documents: Passages, or the keys of their adapters. A trained adapter is preferred to a translated one.
            merge: How several adapters are combined.
            scores: The documents' retrieval scores, for `merge="score"`.
            strength: A factor for the update of all adapters together.

        Raises:
            AdapterError: If `documents` is empty, exceeds `max_adapters`, or has a document without an adapter.
            ConfigurationError: If `merge` or `strength` is not possible, or adapters act from the answer on.
            MissingExtraError: If PEFT is not installed.

        Example:
            >>> peft_model = model.to_peft(["The Patient Anna was built by Aldous Wray."])  # doctest: +SKIP
            >>> peft_model.save_pretrained("adapter")  # doctest: +SKIP
        """
        self.recipe.check_plain("a PeftModel")
        with needed_for("ParametricModel.to_peft"):
            from llamaindex_prag.peft_model import peft_model

        selection = self.select(self._keys(documents), merge=merge, scores=scores, strength=strength)
        if selection is None:
            raise AdapterError("documents is empty; at least one adapter is needed")
        return peft_model(self.lm, stacked(self.layout, self.translations or self.store, selection))

    def _keys(self, documents: Sequence[str | AdapterKey]) -> list[AdapterKey]:
        if isinstance(documents, str):
            raise ConfigurationError(f"documents is {shown(documents)}; a list of passages is needed, such as [text]")
        known = {(self.store.model, made_by) for made_by in (self.recipe.key, self.translator_key)}
        strangers = [d for d in documents if isinstance(d, AdapterKey) and (d.model, d.recipe) not in known]
        if strangers := [d for d in strangers if d.digest != self.recipe.start]:
            raise AdapterError(
                f"{len(strangers)} of {len(documents)} documents are adapters of another model or recipe, the first of "
                f"recipe {strangers[0].recipe[:12]}…, but this call answers from the recipe {self.recipe.name!r}, "
                f"{self.recipe.key[:12]}…; adapters of two recipes are never mixed. Pass the documents' texts, or use "
                "a model with that recipe"
            )
        return [d if isinstance(d, AdapterKey) else self.find(d) or self.key(d) for d in documents]

    def __repr__(self) -> str:
        translator = f", {self.translations.translator!r}" if self.translations else ""
        return f"ParametricModel({self.lm.name!r}, recipe {self.recipe.name!r}, {self.store!r}{translator})"


def _same_store(one: ReadableStore, other: ReadableStore) -> bool:
    """Return whether both are the same object, or lie in the same folder or at the same URL."""
    if (url := getattr(one, "url", None)) is not None:
        return one is other or url == getattr(other, "url", None)
    paths = getattr(one, "path", None), getattr(other, "path", None)
    return one is other or (paths[0] is not None and Path(paths[0]).resolve() == Path(paths[1] or "").resolve())
