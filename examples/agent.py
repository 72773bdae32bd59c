"""An agent with tools that looks things up when it is unsure: the middleware in LangChain's `create_agent`.

The first question is answered in words; the model is unsure of them, so passages are fetched and the answer is written
again. The second one is for a tool: its call is left alone, and the answer after it is watched again. A model of 135M
parameters hardly ever calls a tool by itself, so a small middleware of the agent's own (`sums_by_tool`) says when it
must; larger models decide that themselves, and then it is left out: `--free`.

Run it with `python -m examples.agent`, or `--help`.
"""

import argparse
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from examples.corpus import example_retriever
from langgraph_dynrag import DynamicRetrievalMiddleware, LocalChatModel, Trace
from langgraph_dynrag.queries import Question

QUESTIONS = ["In which year was Tarn Ellis founded?", "How many years are there from 1683 to 1911?"]


@tool
def years_between(first: int, last: int) -> str:
    """How many years there are from one year to another one."""
    return f"From {first} to {last} there are {last - first} years."


@wrap_model_call
def sums_by_tool(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
    """Where the last message asks for years, the tool must be called."""
    last = request.messages[-1]
    if isinstance(last, HumanMessage) and "How many years" in last.text:
        request = request.override(tool_choice="years_between")
    return handler(request)


def build(model: LocalChatModel, *, free: bool = False) -> Any:
    """The agent."""
    # What so small a model writes when it does not know says nothing of what to look for; the question does.
    watching = DynamicRetrievalMiddleware(example_retriever(), query=Question(), k=1)
    return create_agent(
        model,
        [years_between],
        middleware=[watching] if free else [watching, sums_by_tool],
        system_prompt="Answer the question in a full sentence.",
        checkpointer=InMemorySaver(),
    )


def main() -> None:
    """One conversation of two questions; what was looked up is in the agent's state."""
    options = argparse.ArgumentParser(description="Dynamic retrieval in an agent with tools.")
    options.add_argument("questions", nargs="*", default=QUESTIONS)
    options.add_argument("--model", default="embedded", help="'embedded', a folder or a Hub id")
    options.add_argument("--free", action="store_true", help="leave it to the model when to call a tool")
    args = options.parse_args()
    agent = build(LocalChatModel(model=args.model, max_tokens=48), free=args.free)
    config: Any = {"configurable": {"thread_id": "counter"}}
    for question in args.questions:
        print(f"\nYou: {question}")
        before = len(agent.get_state(config).values.get("messages", []))
        result = agent.invoke({"messages": [HumanMessage(question)]}, config)
        for message in result["messages"][before + 1 :]:
            for call in getattr(message, "tool_calls", []):
                print(f"  [called: {call['name']} {call['args']}]")
            if message.text:
                print(f"{message.type}: {message.text.strip()}")
        print(Trace.from_state(result["dynamic_retrieval"]))


if __name__ == "__main__":
    main()
