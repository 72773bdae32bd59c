"""Retrieve when the model writes a search call, such as `<search>query</search>`.

Search-o1, Search-R1 and R1-Searcher do this with models trained for it; an instruct model can be told to. Only text
that the model generated is read: the graph hides results inserted after earlier calls from the view, and prompt,
question and documents are not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_dynrag.drafts.draft import DraftView, Unit, Verdict
from langgraph_dynrag.method import Method
from langgraph_dynrag.search_tags.formats import SEARCH, TagFormat
from langgraph_dynrag.triggers.base import BaseTrigger
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class WrittenTag(BaseTrigger):
    """Retrieves when the model closes a search call.

    Results are written into the answer right after the call, in the same format; nothing is discarded, and the prompt
    does not change. They are not part of the answer that the graph returns.

    Args:
        tag_format: The marks; see `langgraph_dynrag.search_tags.formats`.
    """

    tag_format: TagFormat = SEARCH

    @property
    def unit(self) -> Unit:
        """Text up to the mark that closes a call."""
        return Unit("until", until=self.tag_format.call[1])

    def check_with(self, settings: Method) -> None:
        """Refuse an injector: evidence that stands in the text cannot go into the parameters.

        Raises:
            ConfigurationError: If the settings have an injector.
        """
        if settings.injector is not None:
            raise ConfigurationError(
                f"the results of {self} are written into the answer, so they cannot go into the model's "
                "parameters; use injection='context'"
            )

    def judge(self, view: DraftView) -> Verdict:
        """Return a positive verdict if the judged tokens close a call; the last of several counts."""
        opening, closing = self.tag_format.call
        calls = self.tag_format.new_calls(view.accepted, view.unit.text)
        if calls:
            nested = ", nested; the innermost counts" if calls[-1].nested else ""
            return Verdict(True, f"wrote {opening}{calls[-1].query}{closing}{nested}", trigger="written tag")
        stray = closing in view.unit.text
        reason = f"{closing} closes nothing" if stray else f"no {opening} was written"
        return Verdict(False, reason, trigger="written tag")
