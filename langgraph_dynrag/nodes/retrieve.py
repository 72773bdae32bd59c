"""`retrieve`: run the searches, with a timeout and an error policy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from typing_extensions import TypedDict

from langgraph_dynrag.events.events import Event, RetrievalEvent
from langgraph_dynrag.events.parts import FoundPassage
from langgraph_dynrag.evidence import Passage, distinct, interleaved, passage
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.queries.base import asked_before
from langgraph_dynrag.retrieval.retriever import (
    PROGRAMMING_ERRORS,
    Retriever,
    acall_retriever,
    call_retriever,
    explained,
    in_daemon_thread,
)
from langgraph_dynrag.settings import RetrievalPolicy, Settings
from langgraph_dynrag.state import State, Update
from langgraph_dynrag.streaming import emit
from rag_backbone.errors import DynPragError
from rag_backbone.text.unicode import clean_data

logger = logging.getLogger(__name__)


class RetrievalError(DynPragError, RuntimeError):
    """A search failed or timed out, and the policy is to raise."""


class Searching(Protocol):
    """The part of `Settings` that a search needs, so that code outside the graph can search the same way."""

    @property
    def retriever(self) -> Retriever | None:
        """The retriever to search with."""

    @property
    def k(self) -> int:
        """Number of passages per search."""

    @property
    def retrieval(self) -> RetrievalPolicy:
        """Timeout and error policy."""


class Retrieve(Node):
    """Searches for all of the state's queries, and interleaves the first `k` documents of each."""

    node_name = "retrieve"

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Run the queries one after the other."""
        return search(state, _as_decided(state, settings), config)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Run all queries concurrently."""
        return await asearch(state, _as_decided(state, settings), config)


def search(state: State, settings: Searching, config: RunnableConfig) -> Update:
    """Search for the state's queries, one after the other. Can be called without a graph.

    Args:
        state: `queries`; also, if present, `evidence`, `seen`, `asked`, `retrievals` and `identical`.
        settings: Where and how to search.
        config: Passed to the retriever, for its callbacks.

    Returns:
        `found`, the updated counts, and the events as `trace`.

    Raises:
        RetrievalError: If a search fails and the policy is to raise.
        ConfigurationError: If the retriever returns anything but documents. Errors that point to a bug in the code
            (`PROGRAMMING_ERRORS`) are raised regardless of the policy.
    """
    state = _with_clean_queries(state)
    results = []
    for query in state["queries"]:
        started = time.monotonic()
        found = _search(settings, query, config)
        results.append(_result(query, found, settings, started))
    return _update(state, settings, results)


async def asearch(state: State, settings: Searching, config: RunnableConfig) -> Update:
    """Search for all of the state's queries concurrently; otherwise the same as `search`."""

    async def one(query: str) -> _Result:
        started = time.monotonic()
        return _result(query, await _asearch(settings, query, config), settings, started)

    state = _with_clean_queries(state)
    return _update(state, settings, await asyncio.gather(*(one(query) for query in state["queries"])))


def _as_decided(state: State, settings: Settings) -> Settings:
    """Return the settings with the number of passages that the trigger asked for, if it did."""
    verdict = state.get("verdict")
    k = None if verdict is None else verdict.get("k")
    return settings if k is None else replace(settings, k=k)


class _Result(TypedDict):
    """The result of one query."""

    query: str
    passages: list[Passage]
    error: str | None
    returned: int
    seconds: float


def _with_clean_queries(state: State) -> State:
    return {**state, "queries": clean_data(list(state["queries"]), "a query")}


def _search(settings: Searching, query: str, config: RunnableConfig) -> list[Document] | Exception:
    retriever, policy = _retriever(settings), settings.retrieval
    future = in_daemon_thread(call_retriever, retriever, query, config, settings.k)
    try:
        return future.result(timeout=policy.timeout)
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001 - a retriever may raise anything; the policy decides
        its_own = future.done() and future.exception() is error
        return _failed(error, query, policy, took_too_long=not its_own)


async def _asearch(settings: Searching, query: str, config: RunnableConfig) -> list[Document] | Exception:
    retriever, policy = _retriever(settings), settings.retrieval
    limit = asyncio.timeout(policy.timeout)
    try:
        async with limit:
            return await acall_retriever(retriever, query, config, settings.k)
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001 - a retriever may raise anything; the policy decides
        return _failed(error, query, policy, took_too_long=limit.expired())


def _failed(error: Exception, query: str, policy: RetrievalPolicy, *, took_too_long: bool) -> Exception:
    if took_too_long:
        error = TimeoutError(f"the retriever returned no result within {policy.timeout:g} s")
    if isinstance(error, PROGRAMMING_ERRORS):
        raise explained(error, query)
    if policy.on_error == "raise":
        raise RetrievalError(f"the search for {query!r} failed: {error}") from error
    logger.warning(
        "the search for %r failed, and the answer is written without it: %s: %s", query, type(error).__name__, error
    )
    return error


def _retriever(settings: Searching) -> Retriever:
    assert settings.retriever is not None  # checked when the settings were built
    return settings.retriever


def _result(query: str, found: list[Document] | Exception, settings: Searching, started: float) -> _Result:
    if isinstance(found, Exception):
        problem = f"{type(found).__name__}: {found}"
        return {"query": query, "passages": [], "error": problem, "returned": 0, "seconds": 0.0}
    # More than a few times k documents are of no use, and some retrievers have returned thousands.
    looked_at = found[: 4 * settings.k]
    passages = [passage(d.page_content, d.metadata, d.id) for d in looked_at]
    kept = distinct(p for p in passages if p is not None)[: settings.k]
    return {
        "query": query,
        "passages": kept,
        "error": None,
        "returned": len(found),
        "seconds": time.monotonic() - started,
    }


def _is_identical(results: Sequence[_Result], asked: Sequence[str], seen: set[str]) -> bool:
    """Return whether a search repeats earlier ones of the run, by all of its queries or by all that it found."""
    if not results or any(r["error"] for r in results):
        return False
    found = [p["id"] for r in results for p in r["passages"]]
    return all(asked_before(r["query"], asked) for r in results) or (bool(found) and seen.issuperset(found))


def _update(state: State, settings: Searching, results: Sequence[_Result]) -> Update:
    found: list[Passage] = interleaved([r["passages"] for r in results], settings.k)
    by_id = {p["id"]: r["query"] for r in reversed(results) for p in r["passages"]}
    for p in found:
        p["metadata"] = {**p["metadata"], "query": by_id[p["id"]]}
    present = {p["id"] for p in state.get("evidence") or []}
    seen = set(state.get("seen") or [])
    events: list[Event] = []
    for r in results:
        event = RetrievalEvent(
            type="retrieval",
            query=r["query"],
            documents=[FoundPassage(**p, new=p["id"] not in seen, in_prompt=p["id"] in present) for p in r["passages"]],
            returned=r["returned"],
            error=r["error"],
            identical=_is_identical([r], state.get("asked") or [], seen),
            seconds=r["seconds"],
        )
        emit(event)
        events.append(event)
    identical = _is_identical(results, state.get("asked") or [], seen)
    return {
        "found": found,
        "seen": [*(state.get("seen") or []), *(p["id"] for p in found if p["id"] not in seen)],
        "asked": [*(state.get("asked") or []), *state["queries"]],
        "retrievals": (state.get("retrievals") or 0) + len(results),
        "identical": (state.get("identical") or 0) + identical,
        "trace": events,
    }
