"""A retrieved passage that may act through an adapter, and the plan for it. Knows no framework and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llamaindex_prag.passages import Passage

Making = Literal["train", "translate"]
"""How an adapter is made."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrieved passage."""

    id: str
    text: str
    title: str = ""
    document: str = ""
    """ID of the document that it belongs to; its adapter is removed with that document."""
    name: str = ""
    """Human-readable name for messages."""
    score: float | None = None
    """Retrieval score."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Metadata in which the date of the last change is looked up."""
    original: str | None = None
    """`text_hash` of the original text if this is a cleaned copy, which may use the original's adapter."""

    @property
    def passage(self) -> Passage:
        """The passage in the form that training takes."""
        return Passage(self.text, self.title, self.document)


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """The plan for a candidate."""

    make: Making | None = None
    """How to make its adapter if it is missing; None to make none."""
    beside: bool = False
    """Whether its text is in the prompt in addition to the adapter."""
    in_context: str = ""
    """Why it should not act through an adapter; empty if it should."""
