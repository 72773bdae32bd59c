"""A retrieved passage that may act through an adapter, and what is planned for it. Knows no framework and no model."""

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
    """Id of the document that it is a part of; with the document its adapter goes."""
    name: str = ""
    """What a person recognises it by."""
    score: float | None = None
    """Retrieval score."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Where the date of the last change is looked for."""
    original: str | None = None
    """`text_hash` of the text that this one is a cleaned copy of, whose adapter it may use."""

    @property
    def passage(self) -> Passage:
        """The passage as it is trained on."""
        return Passage(self.text, self.title, self.document)


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """What is planned for a candidate."""

    make: Making | None = None
    """How its adapter is made first, if it is to act."""
    beside: bool = False
    """Whether its text stands in the prompt beside the adapter."""
    in_context: str = ""
    """Why it is not to act through an adapter; empty if it is."""
