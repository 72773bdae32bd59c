"""A scripted chat model for agents: its replies are words with probabilities, tool calls, or exceptions."""

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool

from tests.langgraph_dynrag.scripted import ScriptedChatModel, said

UNSURE = said("The bridge was built by Joan Pike.", Joan=0.2, Pike=0.3)
SURE = said("The bridge was built by Aldous Wray.")


@tool
def population(town: str) -> str:
    """How many people live in a town."""
    return f"{town} has 1200 inhabitants."


def calling(name: str = "population", text: str = "", **arguments: Any) -> AIMessage:
    return AIMessage(text, tool_calls=[{"name": name, "args": arguments, "id": f"id-{name}-{len(arguments)}"}])


class AgentModel(ScriptedChatModel):
    """Like `ScriptedChatModel`, but a reply may also be a message, or an exception to raise."""

    replies: list[Any]
    offered: list[Any] = []  # noqa: RUF012 - a pydantic field

    def bind_tools(self, tools, *, tool_choice=None, **kwargs):
        return self.bind(tools=list(tools), **kwargs)

    def _reply(self, messages, kwargs):
        reply = self.replies[len(self.calls)] if len(self.calls) < len(self.replies) else None
        if isinstance(reply, AIMessage | Exception):
            self.calls.append(messages)
            self.options.append(kwargs)
        return reply

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        reply = self._reply(messages, kwargs)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, AIMessage):
            return ChatResult(generations=[ChatGeneration(message=reply.model_copy())])
        return super()._generate(messages, stop, run_manager, **kwargs)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        import json

        reply = self._reply(messages, kwargs)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, AIMessage):
            chunks = [
                tool_call_chunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=i)
                for i, c in enumerate(reply.tool_calls)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk(content=reply.content, tool_call_chunks=chunks))
            return
        yield from super()._stream(messages, stop, run_manager, **kwargs)
