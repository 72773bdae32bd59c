"""The compiled graph, whose runs end by their budgets and not by LangChain's limit of steps.

`invoke` and its kin run under LangGraph's own limit, which an answer does not reach and which LangGraph marks as its
default. LangChain does not mark its own: into each configuration that one of its runnables passes on (a batch,
`astream_events`, a chain, fallbacks, a tool) it writes the number 25, and an answer of a dozen sentences takes more
steps. It even takes a 25 that was asked for to be this default when it merges configurations. So a limit of 25 counts
as none where it was passed on or inherited, which nothing public tells from a wish; any other limit holds everywhere,
and 25 holds where it is given to this graph itself: `graph.invoke(asked, {"recursion_limit": 25})`, or
`graph.with_config(recursion_limit=25)`, which goes through LangChain as well.

Besides, a message that comes without a question is the question. Nodes could not tell: a thread keeps the `question` of
a run that failed as it began, and a state does not say when which of its values came.
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
"""In the place of a 25 that is not meant; as good as LangGraph's own limit, which is not public."""


class DynamicRAGGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose runs have the same limit of steps however they are started."""

    @classmethod
    def of(cls, graph: CompiledStateGraph[Any, Any, Any, Any]) -> DynamicRAGGraph:
        """Make a graph that was compiled just now one of these."""
        # `StateGraph.compile` knows one class only. This one adds methods and no data, so nothing is built again.
        graph.__class__ = cls
        assert isinstance(graph, cls)
        return graph

    # All other ways to run it come down to these two.

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002
        """As of any compiled graph."""
        check_context(kwargs.get("context"))
        return super().stream(_taken(input), self._with_steps(config), **kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002
        """As of any compiled graph."""
        check_context(kwargs.get("context"))
        return super().astream(_taken(input), self._with_steps(config), **kwargs)

    def update_state(self, config: RunnableConfig, values: Any, *args: Any, **kwargs: Any) -> RunnableConfig:
        """As of any compiled graph."""
        return super().update_state(config, _clean(values), *args, **kwargs)

    async def aupdate_state(self, config: RunnableConfig, values: Any, *args: Any, **kwargs: Any) -> RunnableConfig:
        """As of any compiled graph."""
        return await super().aupdate_state(config, _clean(values), *args, **kwargs)

    def _with_steps(self, config: RunnableConfig | None) -> RunnableConfig | None:
        """Return a run's configuration, without the limit that LangChain fills in."""
        given = config or {}
        # What a caller inside of a chain does not pass on comes from the context.
        inherited = var_child_runnable_config.get() or {}
        limit = given.get("recursion_limit") or inherited.get("recursion_limit")
        # Whatever passes a configuration on (LangChain, LangGraph, a server) writes metadata into it.
        asked_for = "recursion_limit" in given and "metadata" not in given
        if limit != DEFAULT_RECURSION_LIMIT or asked_for:
            return config
        own = (self.config or {}).get("recursion_limit", _STEPS)
        return {**given, "recursion_limit": own}


def _clean(given: Any) -> Any:
    # Here, because a checkpointer saves the input before any node sees it.
    return clean_models(given, "the graph's input")


def _taken(given: Any) -> Any:
    check_input(given)
    return _with_question(_clean(given))


def _with_question(given: Any) -> Any:
    """An input, with the human message that it ends with as its question if it has none."""
    if not isinstance(given, Mapping) or "question" in given or not given.get("messages"):
        return given
    messages = given["messages"]
    last = messages[-1] if isinstance(messages, list) else messages
    try:
        (message,) = convert_to_messages([last])
        return {**given, "question": message_parts(message).text} if isinstance(message, HumanMessage) else given
    except (NotImplementedError, ValueError, TypeError):
        return given  # the graph says what is wrong with it
