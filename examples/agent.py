"""An agent with tools that retrieves when it is unsure, by means of a middleware for LangChain's `create_agent`.

The model is unsure of its answer to the first question, so passages are retrieved and the answer is rewritten. The
second question is answered with a tool: the tool call passes unchanged, and the answer after it is watched again. A
model of 135M parameters hardly ever calls a tool on its own, so a second middleware, `sums_by_tool`, forces the call.
Larger models decide themselves; `--free` leaves that middleware out.

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
    """Force the tool call if the last message asks for a number of years."""
    last = request.messages[-1]
    if isinstance(last, HumanMessage) and "How many years" in last.text:
        request = request.override(tool_choice="years_between")
    return handler(request)


def build(model: LocalChatModel, *, free: bool = False) -> Any:
    """Build the agent."""
    # What so small a model writes when it does not know the answer is no useful query; the question is.
    watching = DynamicRetrievalMiddleware(example_retriever(), query=Question(), k=1)
    return create_agent(
        model,
        [years_between],
        middleware=[watching] if free else [watching, sums_by_tool],
        system_prompt="Answer the question in a full sentence.",
        checkpointer=InMemorySaver(),
    )


def main() -> None:
    """Ask the questions in one conversation; print each answer and the trace, which the agent's state holds."""
    options = argparse.ArgumentParser(description="Dynamic retrieval in an agent with tools.")
    options.add_argument("questions", nargs="*", default=QUESTIONS)
    options.add_argument("--model", default="embedded", help="'embedded', a folder or a Hub id")
    options.add_argument("--free", action="store_true", help="let the model decide when to call a tool")
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
