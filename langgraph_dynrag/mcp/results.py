"""What the tools return, as models whose JSON schemas clients see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from langgraph_dynrag.events.answer_warnings import answer_warnings
from langgraph_dynrag.events.events import Event, RetrievalEvent, events_of
from langgraph_dynrag.evidence import name_of


class FoundText(BaseModel):
    """A passage of a document."""

    number: int = Field(description="Its number in this result, from 1.")
    title: str = Field(description="Title of the document; empty if it has none.")
    source: str = Field(description="Where the document comes from.")
    text: str
    score: float | None = Field(description="The retriever's score; null if it reports none.")

    @classmethod
    def of(cls, number: int, passage: Mapping[str, Any]) -> FoundText:
        """Return a passage or source of the graph."""
        return cls(number=number, **{name: passage[name] for name in ("title", "source", "text", "score")})


class SearchResult(BaseModel):
    """The passages that a search found, best first."""

    passages: list[FoundText]


class SearchMade(BaseModel):
    """A search that was made for an answer."""

    query: str
    found: list[str] = Field(description="Names of the documents that it found.")
    failed: bool


class AnswerResult(BaseModel):
    """An answer with its sources."""

    answer: str = Field(description="The whole answer, the reasoning included.")
    short_answer: str = Field(description="The answer alone.")
    sources: list[FoundText] = Field(description="The passages that the answer was written with.")
    searches: list[SearchMade] = Field(description="The searches that were made while it was written, in order.")
    warnings: list[str] = Field(description="What a reader of the answer should know; empty if there is nothing.")

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> AnswerResult:
        """Return the output of the graph, without the texts of errors, which may name files of this machine."""
        events: list[Event] = result.get("trace") or []
        searches = events_of(events, RetrievalEvent)
        failed = sum(1 for event in searches if event["error"])
        warnings = answer_warnings(event for event in events if event["type"] != "retrieval")
        if failed:
            told = f"{failed} of {len(searches)} searches failed, and the answer was written without them"
            warnings.insert(0, told)
        return cls(
            answer=str(result.get("answer") or ""),
            short_answer=str(result.get("short_answer") or ""),
            sources=[FoundText.of(source["number"], source) for source in result.get("sources") or []],
            searches=[
                SearchMade(
                    query=event["query"], found=[name_of(d) for d in event["documents"]], failed=bool(event["error"])
                )
                for event in searches
            ],
            warnings=warnings,
        )
