"""What runs on a node: one model, which trains the batches that the driver sends. Imports torch when it starts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamaindex_prag.cluster.environment import Environment, versions
from rag_backbone.errors import DynPragError

if TYPE_CHECKING:
    from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.augment.augmentation import Augmentation
    from llamaindex_prag.cluster.worker_store import SideEntries
    from llamaindex_prag.jobs.pace import Pace
    from llamaindex_prag.parametrize import Parametrizer, Result
    from llamaindex_prag.passages import Passage


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker needs to train as the driver would."""

    model: Mapping[str, Any]
    """Arguments of `CausalLM.from_pretrained`."""
    recipe: Recipe
    start: tuple[AdapterKey, Adapter] | None
    """Key and values of the recipe's start, if it has one."""
    documents_at_once: int
    tokens_at_once: int | None
    threads: int


class Worker:
    """A model on a node, which Ray runs as an actor.

    Args:
        options: What to train with.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._model: Any = None

    def start(self) -> Environment:
        """Load the model, and describe this process; why a model could not be loaded is in `Environment.problem`."""
        import ray

        node, own = ray.get_runtime_context().get_node_id(), versions()
        try:
            return Environment(node, platform.node(), own, self._load())
        except (DynPragError, ImportError, AttributeError) as error:  # the latter two: other versions
            return Environment(node, platform.node(), own, problem=f"{error}")

    def pace(self) -> Pace:
        """Return this node's pace (`jobs.pace`)."""
        from llamaindex_prag.jobs.pace import pace_of

        return pace_of(self._model, self._parametrizer({}).augmenter, self._options.documents_at_once)

    def train(
        self, passages: Sequence[Passage], augmentations: Mapping[str, Augmentation], side: SideEntries
    ) -> tuple[list[Result], SideEntries]:
        """Train passages.

        Args:
            passages: Passages of different texts, none of them blank or too long.
            augmentations: Augmentations that the user gave, by text hash.
            side: The driver's side entries about these passages.

        Returns:
            The results, and side entries for the driver's store.
        """
        store = self._model.store
        store.begin(side)
        return list(self._parametrizer(augmentations).results(passages)), store.written

    def _load(self) -> str:
        import torch

        from llamaindex_prag.cluster.worker_store import WorkerStore
        from llamaindex_prag.parametric_model import ParametricModel
        from rag_backbone.loading.causal_lm import CausalLM

        torch.set_num_threads(self._options.threads)
        lm = CausalLM.from_pretrained(**self._options.model)
        store = WorkerStore(lm.fingerprint, self._options.start)
        self._model = ParametricModel(lm, store, recipe=self._options.recipe)
        return lm.fingerprint

    def _parametrizer(self, augmentations: Mapping[str, Augmentation]) -> Parametrizer:
        from llamaindex_prag.parametrize import Parametrizer

        return Parametrizer(
            self._model,
            documents_at_once=self._options.documents_at_once,
            tokens_at_once=self._options.tokens_at_once,
            augmentations=augmentations,
        )
