"""Dynamic RAG for LangGraph: when, what and how to retrieve while the model is writing."""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from langgraph_dynrag.agents.middleware import DynamicRetrievalMiddleware as DynamicRetrievalMiddleware
    from langgraph_dynrag.agents.tool import create_dynamic_rag_tool as create_dynamic_rag_tool
    from langgraph_dynrag.agents.tool import create_retriever_tool as create_retriever_tool
    from langgraph_dynrag.budgets import Budgets as Budgets
    from langgraph_dynrag.calibration.calibrating import calibrate as calibrate
    from langgraph_dynrag.calibration.report import Calibration as Calibration
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel as LocalChatModel
    from langgraph_dynrag.generators.chat import ChatGenerator as ChatGenerator
    from langgraph_dynrag.generators.endpoint import forget_endpoints as forget_endpoints
    from langgraph_dynrag.generators.server_policy import Capabilities as Capabilities
    from langgraph_dynrag.generators.server_policy import ServerPolicy as ServerPolicy
    from langgraph_dynrag.graph import acreate_dynamic_rag as acreate_dynamic_rag
    from langgraph_dynrag.graph import create_dynamic_rag as create_dynamic_rag
    from langgraph_dynrag.graph import create_nodes as create_nodes
    from langgraph_dynrag.presets.methods import PRESETS as PRESETS
    from langgraph_dynrag.presets.methods import get_preset as get_preset
    from langgraph_dynrag.prompts import AnswerPrompt as AnswerPrompt
    from langgraph_dynrag.prompts import Exemplar as Exemplar
    from langgraph_dynrag.prompts import reasoned_prompt as reasoned_prompt
    from langgraph_dynrag.reflection import SegmentSelection as SegmentSelection
    from langgraph_dynrag.settings import Reformulation as Reformulation
    from langgraph_dynrag.settings import RetrievalPolicy as RetrievalPolicy
    from langgraph_dynrag.settings import Settings as Settings
    from langgraph_dynrag.state import DynamicRAGContext as DynamicRAGContext
    from langgraph_dynrag.state import DynamicRAGState as DynamicRAGState
    from langgraph_dynrag.trace.trace import Trace as Trace

_EXPORTS = {
    "PRESETS": "presets.methods",
    "AnswerPrompt": "prompts",
    "Budgets": "budgets",
    "Calibration": "calibration.report",
    "Capabilities": "generators.server_policy",
    "ChatGenerator": "generators.chat",
    "DynamicRAGContext": "state",
    "DynamicRAGState": "state",
    "DynamicRetrievalMiddleware": "agents.middleware",
    "Exemplar": "prompts",
    "LocalChatModel": "chat_model.local_chat_model",
    "Reformulation": "settings",
    "RetrievalPolicy": "settings",
    "SegmentSelection": "reflection",
    "ServerPolicy": "generators.server_policy",
    "Settings": "settings",
    "Trace": "trace.trace",
    "acreate_dynamic_rag": "graph",
    "calibrate": "calibration.calibrating",
    "create_dynamic_rag": "graph",
    "create_dynamic_rag_tool": "agents.tool",
    "create_nodes": "graph",
    "create_retriever_tool": "agents.tool",
    "forget_endpoints": "generators.endpoint",
    "get_preset": "presets.methods",
    "reasoned_prompt": "prompts",
}

__all__ = [
    "PRESETS",
    "AnswerPrompt",
    "Budgets",
    "Calibration",
    "Capabilities",
    "ChatGenerator",
    "DynamicRAGContext",
    "DynamicRAGState",
    "DynamicRetrievalMiddleware",
    "Exemplar",
    "LocalChatModel",
    "Reformulation",
    "RetrievalPolicy",
    "SegmentSelection",
    "ServerPolicy",
    "Settings",
    "Trace",
    "acreate_dynamic_rag",
    "calibrate",
    "create_dynamic_rag",
    "create_dynamic_rag_tool",
    "create_nodes",
    "create_retriever_tool",
    "forget_endpoints",
    "get_preset",
    "reasoned_prompt",
]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
