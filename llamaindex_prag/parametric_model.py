"""One language model with the adapters of one recipe: what answers from documents that are in its weights.

The frameworks' classes are thin shells around this one. It puts together model, store and bank, names adapters by the
text that they stand for, and runs a request with some of them.
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
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.augment.choice import settled
from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.translator.translations import Translations
    from llamaindex_prag.translator.translator import Translator
    from rag_backbone.loading.causal_lm import CausalLM


# Weak on both sides, as a parametric model keeps its base model alive.
_made: weakref.WeakKeyDictionary[CausalLM, weakref.ref[ParametricModel]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


class ParametricModel(LocalModel):
    """A model that can answer from stored adapters.

    Use `ParametricModel.of`, which gives one model's users the same object and attaches it to the engine. One that is
    made directly trains and measures; before it answers from adapters, call `attach()`.

    Args:
        lm: The base model.
        store: Its adapters.
        recipe: By which they were made.
        max_adapters: The most documents that one call may use.
        slots: How many different selections stay in memory.
        translator: Makes adapters of documents that have no trained one. Its adapters have the recipe's form.

    Raises:
        ConfigurationError: If the store was made for another model, the model has no layers that the recipe names, or
            the translator's adapters have another form.
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
                f"the store holds adapters of the model {store.model[:12]}…, and {lm.name} is {lm.fingerprint[:12]}…. "
                "Adapters fit only the model that they were trained on; use that model, or another store."
            )
        self.layout = layout_of(lm.model, rank=self.recipe.rank, targets=self.recipe.targets, layers=self.recipe.layers)
        self.max_adapters = max_adapters
        self.translations = self._translations(translator)
        source = self.translations or store
        self.bank = AdapterBank(lm.model, self.layout, source, max_adapters=max_adapters, slots=slots)

    def attach(self) -> Self:
        """Have the engine of `lm` apply this model's adapters, in the place of those of a model attached earlier.

        Returns:
            The model itself.
        """
        self.lm.engine.attach(self.bank)
        return self

    def _translations(self, translator: Translator | None) -> Translations | None:
        if translator is None:
            return None
        from llamaindex_prag.translator.translations import Translations

        if translator.config.layout != self.layout:
            raise ConfigurationError(
                f"the translator makes adapters of {translator.config.layout!r}, and the recipe {self.recipe.name!r} "
                f"has {self.layout!r}. Use recipe={translator.config.recipe.name!r}, which it was trained for."
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
        """Return the one parametric model of `lm`: made and attached at the first call, the same afterwards.

        Raises:
            ConfigurationError: If it was made with another store, recipe or translator.
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
                    "adapters and translator. Load the model a second time for other ones."
                )
            assert isinstance(known, cls)
            return known

    @property
    def local(self) -> Self:
        """The model that trains adapters and measures what they do: this one."""
        return self

    def check_chat_model(self, chat: object) -> None:
        """Refuse a chat model that writes with another model in memory."""
        if getattr(chat, "lm", None) is not self.lm:
            raise ConfigurationError(
                "the adapters are of another model in memory: make the model by "
                "LocalChatModel.from_causal_lm(adapters.lm)"
            )

    def _selected(self, keys: Sequence[AdapterKey], **options: Any) -> ActiveAdapters:
        return self.bank.select(keys, **options)

    def answer(
        self,
        question: str,
        *,
        documents: Sequence[str | AdapterKey] = (),
        passages: Sequence[str] = (),
        merge: Merge = "mean",
        strength: float = 1.0,
        max_new_tokens: int = 48,
    ) -> str:
        """A short answer.

        Args:
            question: What is asked.
            documents: Passages whose adapters are used, trained ones before translated ones, or the adapters' keys; no
                text enters the prompt.
            passages: Passages that do stand in the prompt.
            merge: How several adapters are combined.
            strength: Multiplies their updates.
            max_new_tokens: Where an answer that does not end is cut off.
        """
        keys = [d if isinstance(d, AdapterKey) else self.find(d) or self.key(d) for d in documents]
        selection = self.select(keys, merge=merge, strength=strength)
        ids = prompt_ids(self.lm.tokenizer, question, passages)
        found = self.lm.engine.generate(Request(ids, max_new_tokens, adapters=selection))
        return clean_answer(found.text)

    def __repr__(self) -> str:
        translator = f", {self.translations.translator!r}" if self.translations else ""
        return f"ParametricModel({self.lm.name!r}, recipe {self.recipe.name!r}, {self.store!r}{translator})"


def _same_store(one: ReadableStore, other: ReadableStore) -> bool:
    """Whether both are one object, or lie in one folder."""
    paths = getattr(one, "path", None), getattr(other, "path", None)
    return one is other or (paths[0] is not None and Path(paths[0]).resolve() == Path(paths[1] or "").resolve())
