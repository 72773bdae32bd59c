"""`dynprag mcp`: the index and the dynamic answer as tools of an MCP server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langgraph_dynrag.commands.options import (
    DEFAULT_INDEX,
    BaseURL,
    BundleOption,
    IndexFolder,
    MaxRetrievals,
    MaxSeconds,
    MaxTokens,
    Model,
    Passages,
    PresetOption,
    Quiet,
    SearchOption,
    Threshold,
    chat_of,
    method_of,
    refuse_given,
)
from rag_backbone.console import console, given_path
from rag_backbone.extras import needed_for

if TYPE_CHECKING:
    from langgraph_dynrag.retrieval import LocalIndex

_HOST, _PORT = "127.0.0.1", 8000
_TOKEN = "DYNPRAG_MCP_TOKEN"  # noqa: S105 - the name of a variable


def mcp(
    index: IndexFolder = DEFAULT_INDEX,
    documents: Annotated[
        Path | None,
        typer.Option(
            "--documents",
            "-d",
            help="A folder, or a file, that is indexed first, as by `dynprag index`.",
            parser=given_path,
            metavar="FOLDER",
        ),
    ] = None,
    transport: Annotated[Literal["stdio", "http"], typer.Option(help="How clients connect.")] = "stdio",
    host: Annotated[str, typer.Option(help="With http: the address to listen on.")] = _HOST,
    port: Annotated[int, typer.Option(help="With http: the port; 0 takes a free one.")] = _PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"With http: a file with the bearer token of clients, or set ${_TOKEN}. Needed unless the host is "
            "127.0.0.1.",
            parser=given_path,
            metavar="FILE",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="With http: a name or address under which clients reach the server; repeatable.", metavar="NAME"
        ),
    ] = None,
    preset: PresetOption = None,
    bundle: BundleOption = "paper",
    model: Model = "embedded",
    base_url: BaseURL = None,
    retriever: SearchOption = "hybrid",
    k: Passages = None,
    threshold: Threshold = None,
    max_retrievals: MaxRetrievals = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    max_running: Annotated[int, typer.Option(help="Answers that are written at the same time.")] = 2,
    *,
    search_only: Annotated[
        bool, typer.Option("--search-only", help="Offer the tool `search` alone. Needs no model.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Serve the index to agents: a Model Context Protocol server with the tools search and answer.

    With stdio, which an agent starts itself, stdout belongs to the protocol; everything else goes to stderr.
    """
    with needed_for("dynprag mcp"):
        from langgraph_dynrag.mcp import MCPAccess, MCPLimits, create_mcp_server
        from langgraph_dynrag.mcp.access import read_token
        from langgraph_dynrag.mcp.serving import listen, protocol_stdout, serve_http

    over_network: dict[str, object] = {"--token-file": token_file, "--allowed-host": allowed_host or None}
    at = {"--host": None if host == _HOST else host, "--port": None if port == _PORT else port}
    of_answers = {"--preset": preset, "--base-url": base_url, "--k": k, "--threshold": threshold}
    budgets = {"retrievals": max_retrievals, "tokens": max_tokens, "seconds": max_seconds}
    over_http = transport == "http"
    if not over_http:
        refuse_given(over_network | at, "only used with --transport http")
    if search_only:
        refuse_given(
            of_answers | {f"--max-{name}": value for name, value in budgets.items()}, "not used with --search-only"
        )
    access = MCPAccess(host, port, read_token(token_file), tuple(allowed_host or ())) if over_http else None
    limits = MCPLimits(running=max_running)
    # Listens first, so that a port that is taken is known before anything is indexed.
    place: AbstractContextManager[Any] = protocol_stdout() if access is None else listen(access)
    with place as listening:
        method, options = method_of(preset or "flare", bundle, k=k, threshold=threshold, **budgets)
        searcher = _filled(index, documents, quiet=quiet or console().quiet).as_retriever(retriever)
        graph = None
        if not search_only:
            from langgraph_dynrag.graph import create_dynamic_rag

            graph = create_dynamic_rag(chat_of(model, base_url), searcher, preset=method, **options)
        server = create_mcp_server(searcher, graph, limits=limits, access=access)
        if access is None:
            server.run("stdio")
        else:
            serve_http(server, access, listening, started=lambda url: typer.echo(f"serving {index} at {url}", err=True))


def _filled(folder: Path, documents: Path | None, *, quiet: bool) -> LocalIndex:
    from langgraph_dynrag.retrieval import LocalIndex

    index = LocalIndex(folder)
    if documents is not None:
        report = index.ingest(documents, progress=console().shows_progress)
        if not quiet:
            typer.echo(f"{folder}: {report}", err=True)
    return index
