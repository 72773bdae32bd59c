"""What a text says of the searches that a model writes into it: which of it is no part of the answer, what is open.

A part of the settings. What answers the searches is in `langgraph_dynrag.steps.exchange`.
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
    """Where evidence stands in the prompt: the model writes no searches, so its text is not looked at."""

    within_text: ClassVar[bool] = False
    """Whether evidence is inserted into the text, so that the prompt stays as it is."""

    @property
    def closing_mark(self) -> str:
        """Closes an open call; empty where there are none."""
        return ""

    def marked(self, text: str, since: int = 0) -> list[Span]:
        """What is no part of the answer after a character: closed calls and stray closing marks."""
        return []

    def open_call(self, text: str, since: int = 0) -> int | None:
        """Where a call begins that nothing closes; None if there is none."""
        return None


@dataclass(frozen=True)
class Exchange(NoExchange):
    """Searches and their results in the text, in one format."""

    tag_format: TagFormat
    within_text: ClassVar[bool] = True

    def check_with(self, settings: Method) -> None:
        """Refuse an injector: what stands in the text cannot go into the parameters."""
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
        """What is no part of the answer after a character: closed calls and stray closing marks."""
        return self.tag_format.marked(text, since)

    def open_call(self, text: str, since: int = 0) -> int | None:
        """Where a call begins that nothing closes; None if there is none."""
        return self.tag_format.open_call(text, since)
