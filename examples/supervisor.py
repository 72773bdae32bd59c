"""Dynamic RAG as a subgraph: a supervisor routes each message to a librarian, which retrieves, or to a clerk.

The compiled graph is a node like any other. It shares only `messages` with its parent graph, uses the parent's
checkpointer because it has none itself, and its output appears in the parent's stream.

Run it with `python -m examples.supervisor`, or `--help`.
"""

import argparse
import re
from typing import Any, Literal

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from examples.corpus import example_retriever
from langgraph_dynrag import LocalChatModel, create_dynamic_rag

MESSAGES = ["How much is 1911 - 1683?", "In which year was Tarn Ellis founded?"]
_SUM = re.compile(r"(-?\d+)\s*([-+*])\s*(-?\d+)")


def supervisor(state: MessagesState) -> Command[Literal["librarian", "clerk"]]:
    """Route sums to the clerk and everything else to the librarian."""
    return Command(goto="clerk" if _SUM.search(state["messages"][-1].text) else "librarian")


def clerk(state: MessagesState) -> dict[str, Any]:
    """Compute the sum."""
    found = _SUM.search(state["messages"][-1].text)
    assert found is not None
    left, right = int(found[1]), int(found[3])
    return {"messages": [AIMessage(str({"+": left + right, "-": left - right, "*": left * right}[found[2]]))]}


def build(model: LocalChatModel, preset: str = "dragin") -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the supervisor's graph."""
    builder = StateGraph(MessagesState)
    builder.add_node("supervisor", supervisor)
    builder.add_node("clerk", clerk)
    builder.add_node("librarian", create_dynamic_rag(model, example_retriever(), preset=preset, k=2))
    builder.add_edge(START, "supervisor")
    builder.add_edge("clerk", END)
    builder.add_edge("librarian", END)
    return builder.compile(checkpointer=InMemorySaver(), name="office")


def main() -> None:
    """Send the messages in one conversation, and print the searches and answers."""
    options = argparse.ArgumentParser(description="Dynamic RAG as a subgraph of a supervisor.")
    options.add_argument("messages", nargs="*", default=MESSAGES)
    options.add_argument("--model", default="embedded", help="'embedded', a folder or a Hub id")
    args = options.parse_args()
    office = build(LocalChatModel(model=args.model))
    config: Any = {"configurable": {"thread_id": "counter"}}
    for text in args.messages:
        print(f"\nYou: {text}")
        asked = {"messages": [HumanMessage(text)]}
        for path, mode, part in office.stream(asked, config, stream_mode=["updates", "custom"], subgraphs=True):
            if mode == "custom" and part["type"] == "retrieval":
                titles = ", ".join(d["title"] for d in part["documents"])
                print(f"  [the librarian searched: {part['query']}; found: {titles}]")
            elif mode == "updates" and not path:
                for node, update in part.items():
                    for message in (update or {}).get("messages", [])[-1:]:
                        print(f"{node}: {message.text}")
    print(f"\n{len(office.get_state(config).values['messages'])} messages in the conversation")


if __name__ == "__main__":
    main()
