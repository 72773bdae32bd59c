"""The query that the model wrote between search marks (Search-o1, Search-R1, R1-Searcher, FLARE-instruct)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from langgraph_dynrag.search_tags.formats import FLARE_INSTRUCT, TagFormat


@dataclass(frozen=True)
class SearchTag(BaseFormulator):
    """The query of the last search call in the generated text; of nested calls, the innermost.

    Without a call, the query is the last sentence. Marks that are never closed are not a call, and an empty call has no
    query.

    Args:
        tag_format: The marks; by default FLARE-instruct's `[Search(term)]` (Jiang et al. 2023, section 3.1).
    """

    tag_format: TagFormat = FLARE_INSTRUCT

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:  # noqa: ARG002
        """Return the query of the last call, or the last sentence without its calls."""
        calls = self.tag_format.new_calls(view.accepted, view.unit.text)
        written = [call.query for call in calls if call.query]
        if written:
            return QueryPlan((written[-1],))
        return QueryPlan((_without_calls(self.tag_format, view.last_sentence),))


def _without_calls(tag_format: TagFormat, text: str) -> str:
    for span in reversed(tag_format.marked(text)):
        text = text[: span.start] + text[span.end :]
    return re.sub(r" {2,}", " ", text).strip()
