"""Output of a running graph: events as they occur, and the answer while it is written."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_core.messages import AIMessageChunk
from langgraph.config import get_stream_writer
from langgraph.graph.message import push_message


def show(chunk: AIMessageChunk) -> None:
    """Show a chunk of the final message in LangGraph's `messages` stream. Does nothing outside of a graph."""
    try:
        push_message(chunk, state_key=None)
    except (RuntimeError, KeyError):
        return


def emit(event: Mapping[str, object]) -> None:
    """Send a custom event to the run's stream. Does nothing outside of a graph."""
    try:
        writer = get_stream_writer()
    except (RuntimeError, KeyError):
        return
    writer(dict(event))
