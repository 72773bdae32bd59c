"""A query that the model writes, and a wrapper that puts the question before another formulator's queries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langgraph_dynrag.drafts.draft import DraftView, Signal, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryFormulator, QueryPlan, plan_of, queries_of

_LABEL = re.compile(r"^(?:search\s+)?quer(?:y|ies)\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Rewrite(BaseFormulator):
    """A search query written by the model, given the question and the answer so far.

    A reply that is empty or rambling (more than `max_words` words) is replaced by the question.
    """

    max_words: int = 32

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return one prompt that asks for a query."""
        return QueryPlan(prompts=(rewrite_prompt(view.question, (view.accepted + view.unit.text).strip(), ()),))

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the first line of the reply, cleaned, or the question if that is unusable."""
        return (clean_reply(replies[0], self.max_words) or view.question,)


@dataclass(frozen=True)
class WithQuestion(BaseFormulator):
    """The question followed by another formulator's query.

    `WithQuestion(LastSentence())` found the most of what was missing (docs/results-queries.md).
    """

    other: QueryFormulator

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the other formulator reads."""
        return self.other.needs

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:
        """Return the other formulator's plan with the question before each query."""
        plan = plan_of(self.other, view, verdict)
        return QueryPlan(self._joined(view, plan.queries), plan.prompts)

    def finish(self, view: DraftView, verdict: Verdict, replies: Sequence[str]) -> tuple[str, ...]:
        """Return the other formulator's queries with the question before each."""
        return self._joined(view, queries_of(self.other, view, verdict, replies))

    def _joined(self, view: DraftView, queries: Sequence[str]) -> tuple[str, ...]:
        return tuple(q if q.strip() == view.question.strip() else f"{view.question} {q}".strip() for q in queries)


def rewrite_prompt(question: str, written: str, tried: Sequence[str]) -> str:
    """Return the prompt that asks for a search query; `tried` are earlier queries that found nothing useful."""
    lines = [f"Question: {question}", f"Answer so far: {written or '(nothing yet)'}"]
    if tried:
        lines.append("Searches that found nothing useful: " + "; ".join(f'"{query}"' for query in tried))
    lines.append("")
    lines.append(
        "Write one short search query for the fact that is still missing to answer the question. "
        "Reply with the query alone, in a single line."
    )
    return "\n".join(lines)


def clean_reply(reply: str, max_words: int) -> str:
    """Return the first line of a reply without label and quotation marks; empty if it is too long for a query."""
    line = next((line.strip() for line in reply.splitlines() if line.strip()), "")
    line = _LABEL.sub("", line).strip().strip("\"'`\u201c\u201d").strip()
    return line if len(line.split()) <= max_words else ""
