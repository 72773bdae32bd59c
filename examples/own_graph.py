"""Single nodes in a graph that one has already.

A help desk's graph takes down who asks, answers, and signs. Its answering becomes dynamic by five of our nodes; between
the decision to search and the search stands a node of the desk's own, which keeps personal names out of queries.

    greet -> begin -> generate -> monitor --(unsure)--> redact -> retrieve -> resume -> generate ...
                                     +-----(done)-----> sign

Run it with `python -m examples.own_graph`, or `--help`.
"""

import argparse
import re
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from examples.corpus import example_retriever
from langgraph_dynrag import DynamicRAGState, LocalChatModel, Trace, create_nodes

QUESTION = "I am Ada Brook. In which year was Tarn Ellis founded?"


class DeskState(DynamicRAGState, total=False):
    """The desk's own state, with room for ours."""

    customer: str
    reply: str


def greet(state: DeskState) -> dict[str, Any]:
    """Take down who asks, and leave the question."""
    text = state["question"]
    named = re.match(r"I am ((?:[A-Z]\w+ ?)+)\.\s*", text)
    return {"customer": named[1], "question": text[named.end() :]} if named else {"customer": "", "question": text}


def redact(state: DeskState) -> dict[str, Any]:
    """Queries leave the house, so the customer's name is taken out of them."""
    return {"queries": [_without(q, state["customer"]) or state["question"] for q in state["queries"]]}


def sign(state: DeskState) -> dict[str, Any]:
    """The letter."""
    name = state["customer"] or "customer"
    return {"reply": f"Dear {name}, {state['answer']}\nYours, the desk"}


def after_monitor(state: DeskState) -> str:
    """The desk's own routing: our node says what it found out in `stage` and `queries`."""
    if state["stage"] == "done":
        return "sign"
    return "redact" if state["queries"] else "generate"


def after_resume(state: DeskState) -> str:
    """What was kept may have ended the answer."""
    return "sign" if state["stage"] == "done" else "generate"


def build(model: LocalChatModel, preset: str = "flare") -> CompiledStateGraph[Any, Any, Any, Any]:
    """The desk's graph with our nodes in it."""
    nodes = create_nodes(model, example_retriever(), preset=preset, k=2, initial_retrieval=False)
    builder = StateGraph(DeskState)
    builder.add_node("greet", greet)
    builder.add_node("begin", nodes.begin)
    builder.add_node("generate", nodes.generate)
    builder.add_node("monitor", nodes.monitor)
    builder.add_node("redact", redact)
    builder.add_node("retrieve", nodes.retrieve)
    builder.add_node("resume", nodes.resume)  # without `reformulate`: whatever is found is used
    builder.add_node("sign", sign)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "begin")
    builder.add_edge("begin", "generate")
    builder.add_edge("generate", "monitor")
    builder.add_conditional_edges("monitor", after_monitor, ["generate", "redact", "sign"])
    builder.add_edge("redact", "retrieve")
    builder.add_edge("retrieve", "resume")
    builder.add_conditional_edges("resume", after_resume, ["generate", "sign"])
    builder.add_edge("sign", END)
    return builder.compile(name="desk")


def main() -> None:
    """Ask the desk once."""
    options = argparse.ArgumentParser(description="Our nodes in somebody else's graph.")
    options.add_argument("question", nargs="?", default=QUESTION)
    options.add_argument("--model", default="embedded", help="'embedded', a folder or a Hub id")
    args = options.parse_args()
    result = build(LocalChatModel(model=args.model)).invoke({"question": args.question})
    print(Trace.from_state(result))
    print(f"\n{result['reply']}")


def _without(query: str, name: str) -> str:
    hidden = name.split()
    return " ".join(w for w in query.split() if w.strip(".,") not in hidden)


if __name__ == "__main__":
    main()
