"""The view of a method that its parts read to refuse other parts that they cannot be combined with.

`Settings` is such a method. Its parts know only this view, because settings are built from parts.
"""

from __future__ import annotations

from typing import Protocol

from langgraph_dynrag.drafts.draft import Signal


class SignalReader(Protocol):
    """A part that reads signals of a draft."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that it reads."""


class Retrieving(Protocol):
    """What searches: a method, or an agent's options."""

    @property
    def retriever(self) -> object | None:
        """The retriever; None: nothing is retrieved."""


class Method(Retrieving, Protocol):
    """The parts of a method, read-only. Parts that are only named in messages or compared with None are objects."""

    @property
    def trigger(self) -> object:
        """The part that decides when to retrieve."""

    @property
    def query(self) -> SignalReader:
        """The part that decides what to search for."""

    @property
    def tag_format(self) -> object | None:
        """The format of searches that the model writes into its text; None: it writes none."""

    @property
    def resume_at(self) -> str:
        """Where writing resumes after a retrieval."""

    @property
    def recheck(self) -> bool:
        """Whether regenerated text is judged again."""

    @property
    def evidence_life(self) -> str:
        """How long passages stay in the prompt."""

    @property
    def injector(self) -> object | None:
        """The part that puts evidence into the model's parameters; None: all of it stands in the prompt."""

    @property
    def selection(self) -> object | None:
        """The part that selects among one continuation per passage; None: there is one draft with all passages."""
