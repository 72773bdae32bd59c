"""The embedding model of `rag_backbone.loading.minilm` as LangChain embeddings."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from rag_backbone.loading.minilm import MiniLM


class MiniLMEmbeddings(Embeddings):
    """Compute dense, normalised vectors of texts, so that a dot product is the cosine similarity.

    Args:
        batch_size: Number of texts embedded in one batch.
        device: `"cpu"`, `"cuda"`, ...
    """

    def __init__(self, *, batch_size: int = 32, device: str = "cpu") -> None:
        self._model = MiniLM(batch_size=batch_size, device=device)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text, in order."""
        return self._model.embed(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self._model.embed([text])[0]

    def __repr__(self) -> str:
        return f"MiniLMEmbeddings(device={self._model.device!r})"
