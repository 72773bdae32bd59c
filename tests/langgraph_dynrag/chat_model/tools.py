"""Tools to call, a call as a model writes it, and a conversation with one."""

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from langgraph_dynrag import LocalChatModel

CALL = '<tool_call>\n{"name": "population", "arguments": {"town": "Hallin"}}\n</tool_call>'


@tool
def population(town: str) -> str:
    """How many people live in a town."""
    return "1200"


@tool
def distance(start: str, end: str, *, by_sea: bool = False) -> str:
    """How far apart two towns are."""
    return "12 miles"


@tool
def now() -> str:
    """What time it is."""
    return "noon"


def schemas(*tools):
    return LocalChatModel().bind_tools(tools).kwargs["tools"]


HISTORY = [
    HumanMessage("How many?"),
    AIMessage("", tool_calls=[{"name": "population", "args": {"town": "Hallin"}, "id": "1"}]),
    ToolMessage("1200", tool_call_id="1", name="population"),
]
