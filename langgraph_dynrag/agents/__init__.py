"""Add dynamic retrieval to existing agents, as a middleware or as tools. Requires `langchain`."""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from langgraph_dynrag.agents.middleware import DynamicRetrievalMiddleware as DynamicRetrievalMiddleware
    from langgraph_dynrag.agents.middleware import DynamicRetrievalState as DynamicRetrievalState
    from langgraph_dynrag.agents.tool import create_dynamic_rag_tool as create_dynamic_rag_tool
    from langgraph_dynrag.agents.tool import create_retriever_tool as create_retriever_tool

_EXPORTS = {
    "DynamicRetrievalMiddleware": "middleware",
    "DynamicRetrievalState": "middleware",
    "create_dynamic_rag_tool": "tool",
    "create_retriever_tool": "tool",
}

__all__ = ["DynamicRetrievalMiddleware", "DynamicRetrievalState", "create_dynamic_rag_tool", "create_retriever_tool"]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
