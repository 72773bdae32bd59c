"""`dynprag graph`."""

from __future__ import annotations

from typing import Annotated

import typer


def graph(
    *,
    styles: Annotated[bool, typer.Option(help="With colours.")] = False,
) -> None:
    """Print the graph as a Mermaid diagram. Needs no network and no model."""
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
    from langgraph_dynrag.graph import create_dynamic_rag

    drawn = create_dynamic_rag(LocalChatModel(), preset="no_retrieval").get_graph()
    typer.echo(drawn.draw_mermaid(with_styles=styles).strip())
