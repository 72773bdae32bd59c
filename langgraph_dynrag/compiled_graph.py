"""A compiled graph whose runs are limited by their budgets instead of LangChain's default step limit.

`invoke` and its variants run under LangGraph's own step limit, which no answer reaches and which LangGraph marks as a
default. LangChain does not mark its default: it writes the number 25 into every configuration that one of its runnables
passes on (a batch, `astream_events`, a chain, fallbacks, a tool), and an answer of a dozen sentences takes more steps.
When it merges configurations, it even treats an explicit 25 as this default. So a limit of 25 that was passed on or
inherited is ignored, because no public API tells it apart from an explicit one. Any other limit is always respected,
and 25 is respected if it is given to this graph directly: `graph.invoke(asked, {"recursion_limit": 25})`, or
`graph.with_config(recursion_limit=25)`, which LangChain handles as well.

In addition, a message that arrives without a question becomes the question. Nodes could not do this: a thread keeps the
`question` of a run that failed at the start, and a state does not record when its values arrived.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from langchain_core.messages import HumanMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import DEFAULT_RECURSION_LIMIT, var_child_runnable_config
from langgraph.graph.state import CompiledStateGraph

from langgraph_dynrag.clean_input import clean_models
from langgraph_dynrag.inputs.conversation import message_parts
from langgraph_dynrag.inputs.validation import check_context, check_input

_STEPS = 10_000
"""Replaces a 25 that was not meant; as good as LangGraph's own limit, which is not public."""


class DynamicRAGGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose runs have the same step limit however they are started."""

    @classmethod
    def of(cls, graph: CompiledStateGraph[Any, Any, Any, Any]) -> DynamicRAGGraph:
        """Turn a newly compiled graph into an instance of this class.

        `StateGraph.compile` only knows its own class. This class adds methods and no data, so nothing is rebuilt.
        """
        graph.__class__ = cls
        assert isinstance(graph, cls)
        return graph

    # All other ways to run the graph go through these two methods.

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """Stream a run as any compiled graph does, after checking and cleaning the input."""
        check_context(kwargs.get("context"))
        return super().stream(_taken(input), self._with_steps(config), **kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """Stream a run as any compiled graph does, after checking and cleaning the input."""
        check_context(kwargs.get("context"))
        return super().astream(_taken(input), self._with_steps(config), **kwargs)

    def update_state(self, config: RunnableConfig, values: Any, *args: Any, **kwargs: Any) -> RunnableConfig:
        """Update the state as any compiled graph does, after cleaning the values."""
        return super().update_state(config, _clean(values), *args, **kwargs)

    async def aupdate_state(self, config: RunnableConfig, values: Any, *args: Any, **kwargs: Any) -> RunnableConfig:
        """Update the state as any compiled graph does, after cleaning the values."""
        return await super().aupdate_state(config, _clean(values), *args, **kwargs)

    def _with_steps(self, config: RunnableConfig | None) -> RunnableConfig | None:
        """Return a run's configuration without the limit that LangChain fills in."""
        given = config or {}
        # A caller inside a chain that passes no configuration inherits it from the context.
        inherited = var_child_runnable_config.get() or {}
        limit = given.get("recursion_limit") or inherited.get("recursion_limit")
        # Everything that passes a configuration on (LangChain, LangGraph, a server) writes metadata into it.
        asked_for = "recursion_limit" in given and "metadata" not in given
        if limit != DEFAULT_RECURSION_LIMIT or asked_for:
            return config
        own = (self.config or {}).get("recursion_limit", _STEPS)
        return {**given, "recursion_limit": own}


def _clean(given: Any) -> Any:
    # Cleaned here, because a checkpointer saves the input before any node sees it.
    return clean_models(given, "the graph's input")


def _taken(given: Any) -> Any:
    check_input(given)
    return _with_question(_clean(given))


def _with_question(given: Any) -> Any:
    """Add the last message as the question if the input has no question and ends with a human message."""
    if not isinstance(given, Mapping) or "question" in given or not given.get("messages"):
        return given
    messages = given["messages"]
    last = messages[-1] if isinstance(messages, list) else messages
    try:
        (message,) = convert_to_messages([last])
        return {**given, "question": message_parts(message).text} if isinstance(message, HumanMessage) else given
    except (NotImplementedError, ValueError, TypeError):
        return given  # the graph reports what is wrong with it
