"""Collect the queries for the unsure parts of an answer; some queries are written by the model, one call at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from langgraph_dynrag.agents.judged_answer import Need
from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.queries.base import QueryFormulator, QueryPlan, last_words, queries_of


@dataclass(frozen=True)
class Asking:
    """Query plans for the needs of an answer, with the model's replies so far."""

    formulator: QueryFormulator
    plans: tuple[tuple[Need, QueryPlan], ...]
    replies: tuple[str, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompts that the model has not answered yet."""
        return tuple(p for _, plan in self.plans for p in plan.prompts)[len(self.replies) :]

    def answered(self, reply: str) -> Asking:
        """Return a copy with the reply to the first open prompt."""
        return replace(self, replies=(*self.replies, reply))

    def queries(self, options: WatchOptions, count_tokens: Callable[[str], int]) -> list[str]:
        """Return the queries, once all prompts are answered; the question if there are none."""
        found: dict[str, None] = {}
        replies = list(self.replies)
        for need, plan in self.plans:
            own, replies = replies[: len(plan.prompts)], replies[len(plan.prompts) :]
            queries = plan.queries
            if plan.prompts:
                queries = (*queries, *queries_of(self.formulator, need.view, need.verdict, own))
            for query in queries:
                found.setdefault(last_words(query, options.query_tokens, count_tokens))
        kept = [q for q in found if q][: options.max_queries]
        return kept or [last_words(self.plans[0][0].view.question, options.query_tokens, count_tokens)]
