"""What one client may ask of the server: the size of a call, the number of calls at a time, and the time of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from anyio import CancelScope
from mcp.server.fastmcp.exceptions import ToolError

from rag_backbone.checks import known_arguments
from rag_backbone.text.unicode import is_blank
from rag_backbone.typed_fields import Bounds, check_fields

_T = TypeVar("_T")


@known_arguments
@dataclass(frozen=True, slots=True)
class MCPLimits:
    """Limits of an MCP server. A call beyond one is refused with a tool error that names it.

    Raises:
        ConfigurationError: If a limit is unknown, not a number, or out of range.
    """

    characters: Annotated[int, Bounds(least=1)] = 2000
    """Maximum number of characters of a question or query."""
    passages: Annotated[int, Bounds(least=1)] = 20
    """Maximum number of passages that one search returns."""
    running: Annotated[int, Bounds(least=1)] = 2
    """Number of answers that are written at the same time, over all clients; and, separately, of searches."""
    waiting: Annotated[int, Bounds(least=0)] = 16
    """Number of calls that wait for one of these to end; further calls are refused."""
    seconds: Annotated[float, Bounds(above=0, infinite=True)] = 600.0
    """Time after which a call is ended with an error, not counting the time that it waited. A budget of seconds
    (`Budgets`) ends an answer earlier, with the text so far."""

    def __post_init__(self) -> None:
        check_fields(self, "limit ")

    def check_text(self, what: str, text: str) -> None:
        """Refuse a blank or too long text with a `ToolError`."""
        if is_blank(text):
            raise ToolError(f"the {what} is empty; a text is needed")
        if len(text) > self.characters:
            raise ToolError(f"the {what} has {len(text)} characters; at most {self.characters} are accepted")

    def check_passages(self, k: int) -> None:
        """Refuse a number of passages that is out of range with a `ToolError`."""
        if not 1 <= k <= self.passages:
            raise ToolError(f"k is {k}; a number from 1 to {self.passages} is needed")


class Turns:
    """Lets a number of calls run at a time. Others wait, in order; what exceeds the queue is refused.

    Args:
        limits: The numbers, and the time that each call may take.
    """

    def __init__(self, limits: MCPLimits) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.running)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it, for a limited time.

        Raises:
            ToolError: If too many calls wait already, or the call took too long.
        """
        if self._free.locked() and self._waiting >= self._limits.waiting:
            raise ToolError(
                f"the server is busy ({self._limits.running} running, {self._waiting} waiting); try again later"
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        time = asyncio.timeout(None if self._limits.seconds == float("inf") else self._limits.seconds)
        try:
            async with time:
                yield
        except TimeoutError:
            if not time.expired():
                raise
            raise ToolError(f"no result within {self._limits.seconds:g} s") from None
        finally:
            self._free.release()


async def cancelled_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Run work in a task of its own and, if the caller is cancelled, cancel it once and wait until it has ended.

    The `mcp` package cancels a request through anyio, which cancels every further `await` of the request as well. A
    graph that is cancelled has to wait for its nodes to end, so it would be stopped while it stops them.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with CancelScope(shield=True):
            await asyncio.wait([task])
        raise
