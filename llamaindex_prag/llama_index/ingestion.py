"""Makes adapters while nodes are indexed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from llama_index.core.bridge.pydantic import (
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent

from llamaindex_prag.errors import NO_TRANSLATOR
from llamaindex_prag.jobs.estimate import Estimate
from llamaindex_prag.llama_index.arguments import refuse_unknown_arguments
from llamaindex_prag.llama_index.index_contents import document_of
from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.llama_index.training_events import dispatch
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from rag_backbone.documents.names import title_of
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.translator.translations import Translations


class ParametrizeNodes(TransformComponent):
    """Makes the adapter of every node in an `IngestionPipeline`, after the splitter.

    Incremental: a text that already has an adapter costs nothing. If a document is ingested again with different nodes,
    the adapters of nodes that no longer exist are removed, provided that all its nodes come in one call, as shown by
    their relations (`prev_node`, `next_node`, as set by splitters). If only some of its nodes come, nothing is removed.

    Nodes are not changed, because adapters are found by text. A pipeline's cache, which stores nodes, is therefore not
    used: a cached result of another process or store, or from before a document was removed, never replaces making the
    adapters.

    Args:
        llm: The LLM that gets the adapters.
        how: `"train"` the adapters, or store representations that are translated at question time (`"translate"`).
        progress: Whether to show a progress bar, log the estimate, and send `AdapterTrainingEvent`s to LlamaIndex's
            event handlers. `show_progress=` of a call overrides it, as in LlamaIndex's own transformations, but a
            pipeline does not pass on its `show_progress`.
    """

    llm: ParametricLLM
    how: Literal["train", "translate"] = "train"
    progress: bool = True
    _parametrizer: Parametrizer | None = PrivateAttr(default=None)
    _nonce: str = PrivateAttr(default_factory=lambda: uuid.uuid4().hex)

    def __init__(self, **data: Any) -> None:
        # `adapters` is part of the serialised form, but only for caches.
        refuse_unknown_arguments(type(self), data, ("adapters",) if "class_name" in data else ())
        super().__init__(**data)
        if self.how == "translate":
            self._translations()

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Build the transformation from the result of `to_dict`; `kwargs` replace fields."""
        return super().from_dict({name: value for name, value in data.items() if name != "adapters"}, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in the serialised form."""
        return "ParametrizeNodes"

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Serialise the fields, plus a value unique to this process and store state, because caches use it as a key."""
        adapters = f"{self._nonce}/{self.llm.model.store.generation}"
        return {**handler(self), "adapters": adapters, "class_name": self.class_name()}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # The copy shares the parametrizer, as it shares the model.
        memo = {} if memo is None else memo
        memo[id(self._parametrizer)] = self._parametrizer
        return super().__deepcopy__(memo)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex's pickling drops fields that cannot be pickled; a copy without its LLM would make no adapters.
        return partial(type(self), **{name: getattr(self, name) for name in type(self).model_fields}), ()

    def __call__(
        self, nodes: Sequence[BaseNode], *, show_progress: bool | None = None, **_kwargs: Any
    ) -> Sequence[BaseNode]:
        """Make the missing adapters, and return the nodes unchanged; nodes without text are skipped."""
        shown = self.progress if show_progress is None else show_progress
        whole = _whole_documents(nodes)
        for complete in (True, False):
            some = [node for node in nodes if (document_of(node) in whole) == complete]
            self._make(some, complete=complete, shown=shown)
        return nodes

    def estimate(self, nodes: Sequence[BaseNode]) -> Estimate:
        """Estimate how long making the missing adapters will take; prints as "about 9 min for 40 documents (...)".

        Raises:
            ConfigurationError: If `how="translate"`, which takes about a second per node and is not estimated.
        """
        if self.how == "translate":
            raise ConfigurationError("how='translate' trains nothing; there is an estimate for how='train' only")
        return self._trainer().estimate(_passages(nodes))

    def _trainer(self) -> Parametrizer:
        if self._parametrizer is None:
            self._parametrizer = Parametrizer(self.llm.model.local)
        return self._parametrizer

    def _make(self, nodes: Sequence[BaseNode], *, complete: bool, shown: bool) -> None:
        passages = _passages(nodes)
        if not passages:
            return
        if self.how == "translate":
            self._translations().keep(passages, complete=complete, progress=shown)
            return
        self._trainer().parametrize(passages, complete=complete, progress=shown, watch=dispatch if shown else None)

    def _translations(self) -> Translations:
        if self.llm.model.translations is None:
            raise ConfigurationError(
                "how='translate' needs a translator, but the LLM has none: ParametricLLM(translator=FOLDER). "
                + NO_TRANSLATOR
            )
        return self.llm.model.translations

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Make the missing adapters in a thread; see `__call__`."""
        return await asyncio.to_thread(self.__call__, nodes, **kwargs)


def _passages(nodes: Sequence[BaseNode]) -> list[Passage]:
    """Return the passages of the nodes that have text."""
    texts = [(node, node.get_content(MetadataMode.NONE)) for node in nodes]
    return [Passage(text, title_of(node.metadata), document_of(node)) for node, text in texts if text.strip()]


def _whole_documents(nodes: Sequence[BaseNode]) -> set[str]:
    """Return the IDs of documents whose nodes are all present: nodes are linked, and no neighbour is missing."""
    parts: dict[str, list[BaseNode]] = {}
    for node in nodes:
        parts.setdefault(document_of(node), []).append(node)
    whole = set()
    for document, own in parts.items():
        here = {node.node_id for node in own}
        neighbours = [n.node_id for node in own for n in (node.prev_node, node.next_node) if n is not None]
        if here.issuperset(neighbours) and (len(own) == 1 or len(set(neighbours)) == len(own)):
            whole.add(document)
    return whole
