"""The searches that a model writes into its text: which spans do not belong to the answer, and whether a call is open.

A part of the settings. `langgraph_dynrag.steps.exchange` answers the searches.
"""

# ruff: noqa: ARG002
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from langgraph_dynrag.method import Method
from langgraph_dynrag.search_tags.formats import TagFormat
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import Span


class NoExchange:
    """The exchange of methods with evidence in the prompt: the model writes no searches."""

    within_text: ClassVar[bool] = False
    """Whether evidence is inserted into the text, so that the prompt does not change."""

    @property
    def closing_mark(self) -> str:
        """The mark that closes a call; empty if the model writes none."""
        return ""

    def marked(self, text: str, since: int = 0) -> list[Span]:
        """Return the spans after a character that are not part of the answer: closed calls and stray closing marks."""
        return []

    def open_call(self, text: str, since: int = 0) -> int | None:
        """Return where an unclosed call begins; None if there is none."""
        return None


@dataclass(frozen=True)
class Exchange(NoExchange):
    """Searches and their results within the text, in one format."""

    tag_format: TagFormat
    within_text: ClassVar[bool] = True

    def check_with(self, settings: Method) -> None:
        """Refuse an injector: evidence that stands in the text cannot go into the parameters.

        Raises:
            ConfigurationError: If the settings have an injector.
        """
        if settings.injector is not None:
            raise ConfigurationError(
                f"the results of {settings.trigger} are written into the answer, so they cannot go into the model's "
                "parameters; use injection='context'"
            )

    @property
    def closing_mark(self) -> str:
        """The mark after a query."""
        return self.tag_format.call[1]

    def marked(self, text: str, since: int = 0) -> list[Span]:
        """Return the spans after a character that are not part of the answer: closed calls and stray closing marks."""
        return self.tag_format.marked(text, since)

    def open_call(self, text: str, since: int = 0) -> int | None:
        """Return where an unclosed call begins; None if there is none."""
        return self.tag_format.open_call(text, since)
