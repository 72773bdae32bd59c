"""Searches in the trace's page: the query, and the passages found, with title, score, first lines and, folded, text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.trace.markup import Allowance, block, counted, foldable, inline, number, seconds, shortened

_LEAD = 180
"""Characters of a longer passage that are shown while it is folded."""
_MOST = 4000
"""Characters of a passage that are shown at all."""


class Searches:
    """Renders the searches of a run. A passage that is found again is not shown in full again.

    Args:
        allowance: Characters of passages that the page has room for.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._shown: set[str] = set()

    def html(self, event: Mapping[str, Any]) -> str:
        """Return one search as HTML."""
        documents = event.get("documents") or ()
        told = [counted(len(documents), "passage")] if documents else ["nothing found"]
        if event.get("seconds") is not None:
            told.append(seconds(event["seconds"]))
        if event.get("identical"):
            told.append("repeats an earlier search")
        query = f'<p class="label">Searched for</p>{block(event.get("query", ""), style="query")}'
        failed = f'<p class="note">The search failed: {inline(event["error"])}</p>' if event.get("error") else ""
        listed = "".join(self._passage(document) for document in documents)
        found = f'<ol class="passages">{listed}</ol>' if listed else ""
        return f'<div class="search">{query}<p class="meta">{", ".join(told)}</p>{failed}{found}</div>'

    def _passage(self, document: Mapping[str, Any]) -> str:
        facts = [] if document.get("score") is None else [f"score {number(document['score'])}"]
        facts += [] if document.get("new", True) else ["found before"]
        facts += ["already in the prompt"] if document.get("in_prompt") else []
        text, known = str(document.get("text") or ""), str(document.get("id") or document.get("text"))
        shown = ""
        if known in self._shown:
            facts.append("text above")
        elif self._allowance.take(min(len(text), _MOST)):
            shown = foldable(shortened(text, _MOST), _LEAD, style="passage")
            self._shown.add(known)
        else:
            facts.append(f"{counted(len(text), 'character')} left out here")
        told = f' <bdi class="meta">{", ".join(facts)}</bdi>' if facts else ""
        title = f'<p dir="auto"><b>{inline(name_of(document))}</b>{told}</p>'
        return f"<li>{title}{shown}</li>"
