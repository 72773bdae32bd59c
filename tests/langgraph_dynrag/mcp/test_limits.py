"""Limits of calls, and turns among them."""

import asyncio

import pytest
from mcp.server.fastmcp.exceptions import ToolError

from langgraph_dynrag.mcp.limits import MCPLimits, Turns
from rag_backbone.errors import ConfigurationError


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"characters": 0}, "limit characters is 0"),
        ({"running": 0}, "limit running is 0"),
        ({"waiting": -1}, "limit waiting is -1"),
        ({"seconds": 0}, "limit seconds is 0"),
        ({"passages": "3"}, "limit passages is '3'"),
        ({"charcters": 5}, "did you mean 'characters'"),
    ],
)
def test_limits_out_of_range_are_refused(limit, message):
    with pytest.raises(ConfigurationError, match=message):
        MCPLimits(**limit)


async def test_at_most_the_given_number_runs_at_a_time():
    turns, running, most = Turns(MCPLimits(running=2)), 0, 0

    async def call():
        nonlocal running, most
        async with turns.turn():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(call() for _ in range(10)))
    assert most == 2


async def test_a_call_that_is_cancelled_while_it_waits_leaves_the_queue():
    turns = Turns(MCPLimits(running=1, waiting=1))
    async with turns.turn():
        for _ in range(3):
            waiting = asyncio.ensure_future(turns.turn().__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(ToolError, match="busy"):
                async with turns.turn():
                    pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    async with turns.turn():
        pass


async def test_an_error_of_the_call_is_not_taken_for_the_end_of_its_time():
    turns = Turns(MCPLimits(running=1, seconds=float("inf")))
    with pytest.raises(TimeoutError, match="of the search"):
        async with turns.turn():
            raise TimeoutError("of the search")
    with pytest.raises(ToolError, match=r"no result within 0\.01 s"):
        async with Turns(MCPLimits(seconds=0.01)).turn():
            await asyncio.sleep(5)
