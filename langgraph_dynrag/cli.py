"""Register `dynprag index`, `ask`, `mcp`, `graph`, `calibrate` and `evaluate`; each is a module of `commands`."""

from __future__ import annotations

import typer

from langgraph_dynrag.commands.ask import ask
from langgraph_dynrag.commands.calibrate import calibrate
from langgraph_dynrag.commands.evaluate import evaluate
from langgraph_dynrag.commands.graph import graph
from langgraph_dynrag.commands.index import index
from langgraph_dynrag.commands.mcp import mcp


def register(app: typer.Typer) -> None:
    """Add this package's subcommands."""
    app.command("index")(index)
    app.command("ask")(ask)
    app.command("mcp")(mcp)
    app.command("graph")(graph)
    app.command("calibrate")(calibrate)
    app.command("evaluate")(evaluate)
