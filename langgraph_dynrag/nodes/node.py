"""Base class of all nodes: a callable, sync and async, that reads a state and returns an update."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langgraph.runtime import get_runtime
from langgraph.types import Overwrite

from langgraph_dynrag.events.events import CallsEvent, Event
from langgraph_dynrag.events.observers import notify
from langgraph_dynrag.events.usage import Usage, UsageMeter
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import AnyState, DynamicRAGContext, State, Update, check_version
from langgraph_dynrag.streaming import show


class Node(Runnable[Any, Any]):
    """A node of the graph. It is also a plain callable, and works outside of any graph.

    Args:
        settings: The graph's settings; a run's context may override some of them.
    """

    node_name: str
    streams: bool = True
    """Whether the node streams its final answer while it is written; otherwise the answer arrives as a whole."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = self.node_name

    @abstractmethod
    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Do the node's work."""

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Do the node's work without blocking the event loop. Nodes that never wait inherit this call to `run`."""
        return self.run(state, settings, config)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Update:  # noqa: A002, ARG002
        """Run the node. LangGraph calls this method."""
        check_version(input)
        started = time.monotonic()
        meter = UsageMeter()
        update = self.run(input, self._for(input), meter.watching(ensure_config(config)))
        return self._measured(input, update, started, meter.usage, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Update:  # noqa: A002, ARG002
        """Run the node. LangGraph calls this method."""
        check_version(input)
        started = time.monotonic()
        meter = UsageMeter()
        update = await self.arun(input, self._for(input), meter.watching(ensure_config(config)))
        return self._measured(input, update, started, meter.usage, config)

    def __call__(self, state: AnyState, config: RunnableConfig | None = None) -> Update:
        """Run the node on a state, in a custom graph or outside of any graph."""
        return self.invoke(state, config)

    def _for(self, state: State) -> Settings:
        """Return the settings for the run's question, with the user's system text in the prompt."""
        return self._settings().routed(state.get("route")).with_system(state.get("system") or "")

    def _settings(self) -> Settings:
        try:
            context = get_runtime().context
        except (RuntimeError, KeyError):  # outside of a graph
            return self.settings
        # A parent graph's context reaches its subgraphs and graphs that run inside tools. A context declared as a
        # TypedDict is a plain dict, so only an instance that LangGraph built from our schema is meant for this graph.
        return self.settings.overridden(context) if isinstance(context, DynamicRAGContext) else self.settings

    def _measured(
        self, state: State, update: Update, started: float, usage: Usage, config: RunnableConfig | None
    ) -> Update:
        """Add the node's time and its model usage to the update, and the usage of the whole run to a final message.

        The observers of events are called with what the node recorded.
        """
        seconds = time.monotonic() - started
        before = update.pop("seconds", None)
        known = dict(state.get("seconds") or {}) if before is None else before
        known[self.node_name] = known.get(self.node_name, 0.0) + seconds
        trace: object = update.get("trace")  # `begin` replaces the trace of an earlier question
        events: list[Event] = trace.value if isinstance(trace, Overwrite) else update.get("trace") or []
        if usage.calls and not events:
            events = [CallsEvent(type="calls")]
            update = {**update, "trace": events}
        for i, event in enumerate(events):
            event["node"] = self.node_name
            if i == 0:  # the node's time and calls are recorded once
                event.setdefault("seconds", seconds)
                if usage.calls:
                    event["usage"] = usage.to_state()
        if config is not None:
            notify(events, config)
        if update.get("stage") == "done" and update.get("messages"):
            earlier = [] if isinstance(trace, Overwrite) else state.get("trace") or []
            told = Usage.of_events([*earlier, *events])
            messages = [_with_usage(m, told) for m in update["messages"] if isinstance(m, AIMessage)]
            if self.streams:
                for message in messages:
                    if message.usage_metadata is not None:
                        show(AIMessageChunk(content="", id=message.id, usage_metadata=message.usage_metadata))
            update = {**update, "messages": [*messages]}
        return {**update, "seconds": known}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _with_usage(message: AIMessage, usage: Usage) -> AIMessage:
    """Return the final message with the usage of all model calls of the run."""
    own = {**message.response_metadata.get("dynprag", {}), "calls": usage.calls, "calls_with_usage": usage.reported}
    metadata = {**message.response_metadata, "dynprag": own}
    return message.model_copy(update={"usage_metadata": usage.tokens, "response_metadata": metadata})
