"""The postprocessor: nodes stay what they are, and their text in prompts becomes a reference to their adapter."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, get_args

from llama_index.core.base.llms.types import TextBlock
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode

from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.llama_index.markers import marker
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.selection import BESIDE_TEXT
from rag_backbone.errors import AdapterError, ConfigurationError

Missing = Literal["train", "translate", "context", "error"]
Inject = Literal["parametric", "combined"]
dispatcher = get_dispatcher(__name__)


class AdaptersInjectedEvent(BaseEvent):
    """Which nodes a query answers from its weights, and which stayed in the prompt."""

    injected: list[str]
    """Ids of the nodes whose adapters are used."""
    trained: int
    """How many of them were trained for this query."""
    translated: int = 0
    """How many of them are translated, not trained."""
    in_context: dict[str, str]
    """Ids of the nodes whose text stays in the prompt, and why."""

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "AdaptersInjectedEvent"


class ParametricNode(TextNode):
    """A node whose text for the LLM is a reference to its adapter.

    `text`, metadata, `get_content()` and `MetadataMode.EMBED` are the passage as it was retrieved: sources are cited,
    embedded and shown as ever.
    """

    prompt_text: str = Field(description="What prompts get in the place of the text.", exclude=True, repr=False)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "ParametricNode"

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """The passage; for prompts (`MetadataMode.LLM`) the reference, and no metadata."""
        return self.prompt_text if metadata_mode == MetadataMode.LLM else super().get_content(metadata_mode)

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[Any]:
        """The same as blocks."""
        if metadata_mode == MetadataMode.LLM:
            return [TextBlock(text=self.prompt_text)]
        return super().get_content_blocks(metadata_mode)


class ParametricNodePostprocessor(BaseNodePostprocessor):
    """Lets the LLM answer from the retrieved documents' adapters instead of their text.

    Put it last: postprocessors that read the text have to stand before it.

    Args:
        llm: The `ParametricLLM` that the query engine uses.
        missing: What becomes of a node without an adapter: `"train"` it now, `"translate"` it (the LLM needs a
            translator), leave its text in the `"context"`, or raise an `"error"`.
        inject: `"parametric"`: no text in the prompt. `"combined"`: adapter and text.
        strength: Multiplies the updates. None: 1, and 0.1 beside a text, where at full strength they disturb its
            reading more than they add (docs/results-parametric.md).

    Example:
        >>> query_engine = index.as_query_engine(
        ...     llm=llm, node_postprocessors=[ParametricNodePostprocessor(llm=llm)]
        ... )  # doctest: +SKIP
    """

    llm: ParametricLLM
    missing: Missing = "train"
    inject: Inject = "parametric"
    strength: float | None = Field(default=None, gt=0.0)
    _parametrizer: Parametrizer | None = PrivateAttr(default=None)

    def __init__(
        self, *, llm: Any, missing: Missing = "train", inject: Inject = "parametric", store: Any = None, **options: Any
    ) -> None:
        if not isinstance(llm, ParametricLLM):
            raise ConfigurationError(
                f"llm is a {type(llm).__name__}, which cannot use adapters: it would find meaningless references in "
                "its prompt. Give the ParametricLLM that the query engine uses: ParametricLLM(lm=..., store=...)."
            )
        for name, value, known in (("missing", missing, get_args(Missing)), ("inject", inject, get_args(Inject))):
            if value not in known:
                raise ConfigurationError(f"{name} is {value!r}; known: {', '.join(known)}")
        if missing == "translate" and llm.model.translations is None:
            raise ConfigurationError(
                "missing='translate' needs a translator, and the LLM has none; give it one, "
                "ParametricLLM(translator=...), or use missing='train'"
            )
        if store is not None and store is not llm.model.store:
            raise ConfigurationError("store is not the LLM's own; leave it out, or give llm.model.store")
        options |= {"llm": llm, "missing": missing, "inject": inject}
        super().__init__(**options)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "ParametricNodePostprocessor"

    def _postprocess_nodes(
        self,
        nodes: list[NodeWithScore],
        query_bundle: QueryBundle | None = None,
    ) -> list[NodeWithScore]:
        model = self.llm.model
        texts = [n.node.get_content(MetadataMode.NONE) for n in nodes]
        lacking = [i for i, text in enumerate(texts) if text.strip() and not self._known(text)]
        trained = 0
        if lacking and self.missing == "error":
            raise AdapterError(
                f"{len(lacking)} of {len(nodes)} retrieved nodes have no adapter, the first is "
                f"{nodes[lacking[0]].node.node_id}. Parametrize them first (ParametrizeNodes, `dynprag parametrize`), "
                "or choose missing='train' or missing='context'."
            )
        if lacking and self.missing == "train":
            trained = self._train([(nodes[i].node, texts[i]) for i in lacking])
        if lacking and self.missing == "translate" and model.translations is not None:
            model.translations.keep(_passages([(nodes[i].node, texts[i]) for i in lacking]))
        kept: dict[str, str] = {}
        found = []
        room = model.bank.max_adapters
        injected: list[str] = []
        for node, text in zip(nodes, texts, strict=True):
            reason = "" if text.strip() else "no text"
            if not reason and not self._known(text):
                reason = "no adapter"
            if not reason and len(injected) == room:
                reason = f"more than the {room} adapters that a call may use"
            if reason:
                kept[node.node.node_id] = reason
                found.append(node)
            else:
                injected.append(node.node.node_id)
                found.append(self._injected(node, text))
        translated = sum(1 for text in texts if text.strip() and not model.knows(text) and self._known(text))
        dispatcher.event(
            AdaptersInjectedEvent(injected=injected, trained=trained, translated=translated, in_context=kept)
        )
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        # Looking adapters up takes microseconds, training them minutes: neither blocks the loop.
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def _train(self, nodes: list[tuple[BaseNode, str]]) -> int:
        if self._parametrizer is None:
            self._parametrizer = Parametrizer(self.llm.model)
        return self._parametrizer.parametrize(_passages(nodes)).trained

    def _known(self, text: str) -> bool:
        return self.llm.model.find(text) is not None

    def _injected(self, node: NodeWithScore, text: str) -> NodeWithScore:
        strength = self.strength or (1.0 if self.inject == "parametric" else BESIDE_TEXT)
        model = self.llm.model
        reference = marker(model.find(text) or model.key(text), 1.0 if node.score is None else node.score, strength)
        shown = reference if self.inject == "parametric" else f"{reference}\n{text}"
        data = {name: getattr(node.node, name) for name in TextNode.model_fields if hasattr(node.node, name)}
        return NodeWithScore(node=ParametricNode(**{**data, "text": text}, prompt_text=shown), score=node.score)


def _passages(nodes: list[tuple[BaseNode, str]]) -> list[Passage]:
    return [Passage(text, str(n.metadata.get("title", "")), n.ref_doc_id or n.node_id) for n, text in nodes]
