"""The default retrievers. Any LangChain `BaseRetriever` can replace them."""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from langgraph_dynrag.retrieval.bm25 import BM25Retriever as BM25Retriever
    from langgraph_dynrag.retrieval.dense import DenseRetriever as DenseRetriever
    from langgraph_dynrag.retrieval.files import Splitter as Splitter
    from langgraph_dynrag.retrieval.hybrid import HybridRetriever as HybridRetriever
    from langgraph_dynrag.retrieval.index import LocalIndex as LocalIndex
    from langgraph_dynrag.retrieval.minilm import MiniLMEmbeddings as MiniLMEmbeddings

_EXPORTS = {
    "BM25Retriever": "bm25",
    "DenseRetriever": "dense",
    "HybridRetriever": "hybrid",
    "LocalIndex": "index",
    "MiniLMEmbeddings": "minilm",
    "Splitter": "files",
}

__all__ = ["BM25Retriever", "DenseRetriever", "HybridRetriever", "LocalIndex", "MiniLMEmbeddings", "Splitter"]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
