"""Tasks for generators."""

from langchain_core.messages import HumanMessage

from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.drafts.tasks import DraftTask


def task_of(**changes):
    """Return the task of writing an answer of at most 20 tokens from its beginning."""
    given = {
        "question": "Who built it?",
        "messages": [HumanMessage("Who built it?")],
        "accepted": "",
        "accepted_ids": None,
        "carried": Draft(),
        "carried_attention": None,
        "unit": Unit("all"),
        "limit": 20,
        "needs": frozenset(),
    }
    return DraftTask(**{**given, **changes})
