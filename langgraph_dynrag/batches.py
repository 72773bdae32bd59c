"""Many questions at once, without the limit of steps that LangChain sets for a batch.

`invoke` and its kin run under LangGraph's own limit, which an answer does not reach: budgets end it. A batch, however,
goes through LangChain, which fills in a limit of 25 steps for each of its runs, and an answer of a dozen sentences
takes more. A limit that the caller sets is kept, also one that is bound to the graph.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

_STEPS = 10_000
"""As good as LangGraph's own limit outside of batches."""

Config = RunnableConfig | list[RunnableConfig] | None


class DynamicRAGGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph whose batches have the limit of steps that its single runs have."""

    @classmethod
    def of(cls, graph: CompiledStateGraph[Any, Any, Any, Any]) -> DynamicRAGGraph:
        """The same graph as one of these."""
        return cls(**{name: value for name, value in vars(graph).items() if name != "__orig_class__"})

    def batch(self, inputs: Any, config: Any = None, **kwargs: Any) -> list[Any]:
        """As of any runnable."""
        return super().batch(inputs, self._with_steps(config), **kwargs)

    async def abatch(self, inputs: Any, config: Any = None, **kwargs: Any) -> list[Any]:
        """As of any runnable."""
        return await super().abatch(inputs, self._with_steps(config), **kwargs)

    def batch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> Iterator[tuple[int, Any]]:
        """As of any runnable."""
        return super().batch_as_completed(inputs, self._with_steps(config), **kwargs)

    def abatch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[tuple[int, Any]]:
        """As of any runnable."""
        return super().abatch_as_completed(inputs, self._with_steps(config), **kwargs)

    def _with_steps(self, config: Config) -> Config:
        """The configuration of a batch, or those of its runs, with the limit of a single run where none is set."""
        limit = (self.config or {}).get("recursion_limit", _STEPS)
        if isinstance(config, list | tuple):
            return [{"recursion_limit": limit, **(one or {})} for one in config]
        return {"recursion_limit": limit, **(config or {})}
