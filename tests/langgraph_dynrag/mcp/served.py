"""Servers on localhost, and clients of the `mcp` package."""

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from threading import Thread

import httpx
import uvicorn
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.memory import create_connected_server_and_client_session as connected
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

TOKEN = "a-token-of-the-tests-0123456789"

__all__ = ["TOKEN", "HangingRetriever", "cancel", "connected", "http_client", "serving", "text_of"]


@contextmanager
def serving(server):
    """Serve over HTTP on a free port of localhost, in a thread; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(
            uvicorn.Config(server.streamable_http_app(), log_config=None, timeout_graceful_shutdown=1)
        )
        thread = Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        finally:
            running.should_exit = True
            thread.join()


@asynccontextmanager
async def http_client(url, token=None, **headers):
    """Connect to a server over HTTP, with the package's own client."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


class HangingRetriever:
    """A search that does not end by itself; it knows how many of it began and how many were cancelled."""

    def __init__(self):
        self.began = self.cancelled = 0
        self.hangs = True

    async def _search(self, query):
        self.began += 1
        try:
            while self.hangs:
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [Document("The bridge was built by Aldous Wray.", metadata={"title": "Bridge"})]

    def runnable(self):
        return RunnableLambda(self._search)

    async def until(self, began=None, cancelled=None):
        async with asyncio.timeout(60):
            while (began or 0) > self.began or (cancelled or 0) > self.cancelled:
                await asyncio.sleep(0.01)


async def cancel(session):
    """Cancel the latest request of a client."""
    params = CancelledNotificationParams(requestId=session._request_id - 1, reason="changed my mind")
    await session.send_notification(
        ClientNotification(CancelledNotification(method="notifications/cancelled", params=params))
    )


def text_of(result):
    (content,) = result.content
    return content.text
