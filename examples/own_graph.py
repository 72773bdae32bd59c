"""Use single nodes of dynamic RAG in an existing graph.

A help desk's graph notes the customer's name, answers the question, and signs the reply. Five of our nodes make the
answering dynamic. Between the decision to search and the search itself, one of the desk's nodes removes the customer's
name from the queries.

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
    """The desk's state, which extends ours."""

    customer: str
    reply: str


def greet(state: DeskState) -> dict[str, Any]:
    """Split the input into the customer's name and the question."""
    text = state["question"]
    named = re.match(r"I am ((?:[A-Z]\w+ ?)+)\.\s*", text)
    return {"customer": named[1], "question": text[named.end() :]} if named else {"customer": "", "question": text}


def redact(state: DeskState) -> dict[str, Any]:
    """Remove the customer's name from the queries, which go to an external search."""
    return {"queries": [_without(q, state["customer"]) or state["question"] for q in state["queries"]]}


def sign(state: DeskState) -> dict[str, Any]:
    """Write the reply."""
    name = state["customer"] or "customer"
    return {"reply": f"Dear {name}, {state['answer']}\nYours, the desk"}


def after_monitor(state: DeskState) -> str:
    """Route by what the monitor node reports in `stage` and `queries`."""
    if state["stage"] == "done":
        return "sign"
    return "redact" if state["queries"] else "generate"


def after_resume(state: DeskState) -> str:
    """Route to `sign` if the text that was kept already completes the answer."""
    return "sign" if state["stage"] == "done" else "generate"


def build(model: LocalChatModel, preset: str = "flare") -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the desk's graph with our nodes in it."""
    nodes = create_nodes(model, example_retriever(), preset=preset, k=2, initial_retrieval=False)
    builder = StateGraph(DeskState)
    builder.add_node("greet", greet)
    builder.add_node("begin", nodes.begin)
    builder.add_node("generate", nodes.generate)
    builder.add_node("monitor", nodes.monitor)
    builder.add_node("redact", redact)
    builder.add_node("retrieve", nodes.retrieve)
    builder.add_node("resume", nodes.resume)  # without `reformulate`, everything that is found is used
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
    """Ask the desk one question."""
    options = argparse.ArgumentParser(description="Nodes of dynamic RAG in an existing graph.")
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
