"""Run a server over stdio, where stdout belongs to the protocol, or over HTTP."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from mcp.server.fastmcp import FastMCP
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from langgraph_dynrag.mcp.access import MCPAccess
from rag_backbone.errors import ConfigurationError

HEALTH = "/health"
_LAST_SECONDS = 5
"""Time that requests have to end when the server is stopped."""


def listen(access: MCPAccess) -> socket.socket:
    """Return a socket at the address of an access; clients that connect wait until it is served.

    Raises:
        ConfigurationError: If the address cannot be listened on, for example because the port is taken.
    """
    family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
    try:
        return socket.create_server((access.host, access.port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"a server cannot listen on host {access.host}, port {access.port}: {error.strerror}; give an address of "
            "this machine and a free port (0 takes any)"
        ) from error


def serve_http(
    server: FastMCP[Any], access: MCPAccess, listening: socket.socket, *, started: Callable[[str], None]
) -> None:
    """Serve over streamable HTTP until the process is interrupted; `GET /health` says that it runs.

    Args:
        server: The server, created with this access.
        access: Who may use it.
        listening: What `listen` returned.
        started: Called with the address once clients can connect.
    """
    import uvicorn

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    server.custom_route(HEALTH, methods=["GET"])(health)
    here = replace(access, port=listening.getsockname()[1])
    # Its log goes where the process's goes; its own configuration would write to stdout.
    config = uvicorn.Config(
        server.streamable_http_app(), log_config=None, server_header=False, timeout_graceful_shutdown=_LAST_SECONDS
    )
    started(here.url + server.settings.streamable_http_path)
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def protocol_stdout() -> Iterator[None]:
    """Keep stdout for the protocol: within the block, whatever is printed goes to stderr, also by native libraries.

    Only `sys.stdout.buffer`, to which the `mcp` package writes its messages, still leads to stdout.
    """
    printed = sys.stdout
    printed.flush()
    stdout, before = os.dup(1), os.dup(1)
    os.dup2(2, 1)
    sys.stdout = _PrintsToStderr(os.fdopen(stdout, "wb"))
    try:
        yield
    finally:
        sys.stdout = printed
        os.dup2(before, 1)
        os.close(before)


class _PrintsToStderr(io.TextIOBase):
    """A text stream that writes to stderr, and whose `buffer` is another stream."""

    encoding = "utf-8"

    def __init__(self, buffer: BinaryIO) -> None:
        self.buffer = buffer

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def writable(self) -> bool:
        return True
