"""Nodes of a query that is answered from the weights: their form in prompts, and metadata about their use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import TextBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, TextNode

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.llama_index.markers import marker
from rag_backbone.errors import AdapterError

USE = "dynprag"
"""Metadata key under which the use of a node is reported.

`{"used": "adapter" | "adapter and text" | "text"}`, with the reason `why` for a text, the router's `score` (none with
`route="retrieval"`), and `left_out` (reasons by node ID) for retrieved nodes that were not used at all. Prompts and
embeddings exclude this key."""


class ParametricNode(TextNode):
    """A node whose text for the LLM is a reference to its adapter.

    `text`, metadata, `get_content()` and `MetadataMode.EMBED` give the passage as it was retrieved, so sources are
    cited, embedded and shown as usual. The reference is signed by the process that writes the prompt, at that moment,
    so a node that was saved or sent to another process keeps its adapter. An adapter stands only for the text that it
    was trained on: a node whose text was changed afterwards raises instead of entering a prompt.
    """

    adapter: AdapterKey = Field(description="The adapter that replaces the text in prompts.")
    retrieval_score: float = Field(default=1.0, description="The retrieval score, for merge='score'.")
    strength: float = Field(default=1.0, description="Factor on the adapter's update.")
    beside_text: bool = Field(default=False, description="Whether the text is in the prompt too.")

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in the serialised form."""
        return "ParametricNode"

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """Return the passage; for prompts (`MetadataMode.LLM`) the reference, with `beside_text` followed by the text.

        Raises:
            AdapterError: If the text is not the one that the adapter was trained on.
        """
        if metadata_mode != MetadataMode.LLM:
            return super().get_content(metadata_mode)
        self._refuse_unless_learnt(self.text)
        reference = marker(self.adapter, self.retrieval_score, self.strength)
        return f"{reference}\n{super().get_content(metadata_mode)}" if self.beside_text else reference

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[Any]:
        """Return the content as blocks; see `get_content`."""
        if metadata_mode == MetadataMode.LLM:
            return [TextBlock(text=self.get_content(metadata_mode))]
        return super().get_content_blocks(metadata_mode)

    def set_content(self, value: str) -> None:
        """Set the text, which must be the one that the adapter was trained on.

        Raises:
            AdapterError: If it is not, for example because a postprocessor rewrites or shortens passages.
        """
        self._refuse_unless_learnt(value)
        super().set_content(value)

    def _refuse_unless_learnt(self, text: str) -> None:
        if text_hash(text) != self.adapter.text:
            raise AdapterError(
                f"the text of node {self.node_id} is no longer the one that its adapter was trained on, so the source "
                "of the answer would be wrong: a postprocessor that rewrites, shortens or translates passages (such as "
                "MetadataReplacementPostProcessor or SentenceEmbeddingOptimizer) comes after "
                "ParametricNodePostprocessor. Put it before: node_postprocessors=[rewriting, parametric]."
            )


def injected(node: NodeWithScore, adapter: AdapterKey, strength: float, *, beside_text: bool) -> NodeWithScore:
    """Return a copy of a node that is replaced by its adapter in prompts; the given node is not changed."""
    given = node.node
    data = {name: getattr(given, name) for name in TextNode.model_fields if hasattr(given, name)}
    score = 1.0 if node.score is None else node.score if math.isfinite(node.score) else 0.0
    data |= {"text": given.get_content(MetadataMode.NONE), "adapter": adapter, "retrieval_score": score}
    made = ParametricNode(**data, strength=strength, beside_text=beside_text)
    return NodeWithScore(node=made, score=node.score)


def with_use(node: NodeWithScore, use: Mapping[str, Any]) -> NodeWithScore:
    """Return a copy of a node with its use recorded in the metadata (`USE`)."""
    given: BaseNode = node.node
    changes: dict[str, Any] = {"metadata": {**given.metadata, USE: dict(use)}}
    for keys in ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys"):
        changes[keys] = [*(k for k in getattr(given, keys) if k != USE), USE]
    return NodeWithScore(node=given.model_copy(update=changes), score=node.score)
