"""Integration with LlamaIndex. Only this subpackage imports LlamaIndex."""

from llamaindex_prag.llama_index.docstore import AdaptersFollow, ParametricDocumentStore
from llamaindex_prag.llama_index.embedding import MiniLMEmbedding
from llamaindex_prag.llama_index.index_contents import reconcile
from llamaindex_prag.llama_index.ingestion import ParametrizeNodes
from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.llama_index.nodes import ParametricNode
from llamaindex_prag.llama_index.postprocessor import ParametricNodePostprocessor

__all__ = [
    "AdaptersFollow",
    "MiniLMEmbedding",
    "ParametricDocumentStore",
    "ParametricLLM",
    "ParametricNode",
    "ParametricNodePostprocessor",
    "ParametrizeNodes",
    "reconcile",
]
