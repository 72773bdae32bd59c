"""`dynprag graph`."""

from tests.langgraph_dynrag.commands.command import run


def test_the_graph_is_drawn_without_a_model():
    drawn = run("graph").stdout
    assert drawn.startswith("graph TD;") or "graph TD;" in drawn
    for name in ("begin", "generate", "monitor", "retrieve", "reformulate", "resume"):
        assert name in drawn
