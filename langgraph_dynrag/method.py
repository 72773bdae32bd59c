"""What a part of a method may read of the whole, to refuse other parts that it cannot work with.

`Settings` is such a method. Parts know this view of it only, because settings are made of parts.
"""

from __future__ import annotations

from typing import Protocol

from langgraph_dynrag.drafts.draft import Signal


class SignalReader(Protocol):
    """A part that reads signals of a draft."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that it reads."""


class EvidencePlace(Protocol):
    """Says where evidence goes."""

    @property
    def within_text(self) -> bool:
        """Whether evidence is inserted into the text, so that the prompt stays as it is."""


class Method(Protocol):
    """A method's parts, read-only. Those that are only named in messages or compared with None are objects."""

    @property
    def trigger(self) -> object:
        """Decides when to retrieve."""

    @property
    def query(self) -> SignalReader:
        """Decides what to retrieve."""

    @property
    def exchange(self) -> EvidencePlace:
        """The searches that the model writes."""

    @property
    def evidence_life(self) -> str:
        """How long passages stay in the prompt."""

    @property
    def injector(self) -> object | None:
        """Puts evidence into the model's parameters; None: all of it stands in the prompt."""

    @property
    def selection(self) -> object | None:
        """Writes one continuation for each passage; None: there is one draft with all passages."""
