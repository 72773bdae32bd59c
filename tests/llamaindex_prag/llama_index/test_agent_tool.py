"""Tests of a parametric query engine as an agent's tool.

The tool answers from adapters, and the agent plans on the base model.
"""

import asyncio
import json

import pytest
from llama_index.core.agent.workflow import AgentInput, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.tools import QueryEngineTool

from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor
from llamaindex_prag.prompts import conversation_ids, prompt_ids
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.llama_index.conftest import TEXTS, Fixed
from tests.tiny import tiny_llama, tiny_tokenizer

# LlamaIndex's agents read deprecated attributes of their own models.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

QUESTION = "Who wrote a letter?"
TASK = "Find out what the documents say of letters."
LOOK_UP = f"Thought: I have to look it up.\nAction: documents\nAction Input: {json.dumps({'input': QUESTION})}"


def roomy_lm():
    return CausalLM(tiny_llama(max_position_embeddings=8192), tiny_tokenizer(), name="tiny")


@pytest.fixture
def lm():
    """The tiny model with a context window large enough for an agent's system prompt."""
    return roomy_lm()


class CallsATool(MockFunctionCallingLLM):
    """Calls its first tool with the question, then answers with the tool's output."""

    def _get_response_generator(self):
        def reply(messages, tools=(), **options):
            if messages[-1].role == MessageRole.TOOL:
                return ChatMessage(role="assistant", content=f"It says: {messages[-1].content}")
            call = ToolCallBlock(tool_call_id="1", tool_name=tools[0].metadata.name, tool_kwargs={"input": QUESTION})
            return ChatMessage(role="assistant", blocks=[call])

        return reply


def observed(messages) -> str | None:
    """Return the output of a ReAct agent's tool, or None if it has not been called."""
    before, found, text = (messages[-1].content or "").partition("Observation: ")
    return text if found and not before else None


class ReasonsInText(MockFunctionCallingLLM):
    """Does the same as `CallsATool` in the text format of a ReAct agent."""

    def _get_response_generator(self):
        def reply(messages, **options):
            said = observed(messages)
            text = LOOK_UP if said is None else f"Thought: I know it now.\nAnswer: It says: {said}"
            return ChatMessage(role="assistant", content=text)

        return reply


class LooksItUpFirst(ParametricLLM):
    """A parametric model that generates every reply, but whose first reply is replaced with a tool call.

    A random model would never produce a valid tool call.
    """

    async def achat(self, messages, **options):
        return self._said(await super().achat(messages, **options), messages)

    async def astream_chat(self, messages, **options):
        steps = await super().astream_chat(messages, **options)

        async def replaced():
            async for step in steps:
                yield self._said(step, messages)

        return replaced()

    def _said(self, response, messages):
        if observed(messages) is None:
            response.message = ChatMessage(role="assistant", content=LOOK_UP)
        return response


def tool_over(llm, *documents, **options):
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error", max_active=3)
    engine = RetrieverQueryEngine.from_args(Fixed(*documents), llm=llm, node_postprocessors=[post])
    return QueryEngineTool.from_defaults(engine, name="documents", description="Knows about letters.", **options)


def agent_of(kind, tool, **options):
    if kind == "function":
        return FunctionAgent(llm=CallsATool(), tools=[tool], **options)
    return ReActAgent(llm=ReasonsInText(), tools=[tool], **options)


def alone(llm, *documents):
    """Return the answer with the adapters of these documents, or of the base model if there are none."""
    selection = llm.model.select([llm.model.key(TEXTS[i]) for i in documents])
    ids = prompt_ids(llm.model.lm.tokenizer, QUESTION)
    return llm.model.lm.engine.generate(Request(ids, llm.max_new_tokens, adapters=selection)).text


async def run(agent):
    """Run an agent; returns the result, and the messages of each of the agent's own calls."""
    handler = agent.run(user_msg=TASK)
    asked = [event.input async for event in handler.stream_events() if isinstance(event, AgentInput)]
    return await handler, asked


def said_by_base_weights(messages):
    """Return the reply of a model that has never had an adapter."""
    lm = roomy_lm()
    ids = conversation_ids(lm.tokenizer, [(m.role.value, m.content) for m in messages])
    return lm.engine.generate(Request(ids, 12)).text


# ------------------------------------------------------------------ any agent, with a parametric tool


@pytest.mark.parametrize("document", [0, 1])
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("kind", ["function", "react"])
async def test_the_tool_answers_from_the_adapter_of_the_right_document(llm, calls, kind, streaming, document):
    tool = tool_over(llm, document)
    result, _ = await run(agent_of(kind, tool, streaming=streaming))
    (call,) = result.tool_calls
    ((_, selection),) = calls  # the only call of the parametric model comes from the tool
    assert not call.tool_output.is_error
    assert call.tool_kwargs == {"input": QUESTION}
    assert selection.keys == (llm.model.key(TEXTS[document]),)
    assert call.tool_output.content == str(tool.query_engine.query(QUESTION)) == alone(llm, document)
    assert call.tool_output.content not in {alone(llm), alone(llm, 1 - document)}
    assert str(result) == f"It says: {call.tool_output.content}"


@pytest.mark.parametrize("kind", ["function", "react"])
async def test_the_tool_cites_passages_that_no_prompt_contained(llm, calls, kind):
    result, asked = await run(agent_of(kind, tool_over(llm, 0, 1)))
    sources = result.tool_calls[0].tool_output.raw_output.source_nodes
    assert [source.node.node_id for source in sources] == ["node-0", "node-1"]
    assert [source.node.text for source in sources] == TEXTS[:2]
    assert [source.node.metadata["file"] for source in sources] == ["secret-0.txt", "secret-1.txt"]
    assert [source.score for source in sources] == [0.9, 0.8]
    prompts = [prompt for prompt, _ in calls] + [message.content or "" for messages in asked for message in messages]
    assert prompts
    assert not any(hidden in prompt for prompt in prompts for hidden in (*TEXTS, "secret", "⟦"))


@pytest.mark.parametrize("kind", ["function", "react"])
async def test_a_tool_with_return_direct_answers_the_user_itself(llm, kind):
    result, _ = await run(agent_of(kind, tool_over(llm, 0, return_direct=True)))
    assert str(result) == alone(llm, 0)


@pytest.mark.parametrize("kind", ["function", "react"])
async def test_a_document_without_an_adapter_is_an_error_reported_to_the_agent(llm, calls, kind):
    result, _ = await run(agent_of(kind, tool_over(llm, 3)))
    output = result.tool_calls[0].tool_output
    assert output.is_error
    assert isinstance(output.exception, AdapterError)
    assert "node-3" in output.content
    assert "Parametrize them first" in str(result)
    assert not calls  # nothing was answered without the adapter


async def test_concurrent_agents_each_use_their_own_documents(llm, calls):
    expected = [alone(llm, i) for i in range(3)]
    calls.clear()
    agents = [agent_of(kind, tool_over(llm, i)) for kind in ("function", "react") for i in range(3)]
    results = await asyncio.gather(*[run(agent) for agent in agents])
    assert [str(result) for result, _ in results] == [f"It says: {text}" for text in expected * 2]
    assert sorted(len(selection) for _, selection in calls) == [1] * 6
    assert len(set(expected)) == 3


# ------------------------------------------------------------------ an agent whose LLM is the parametric model


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_whose_llm_is_parametric_plans_on_base_weights(llm, calls, streaming):
    result, asked = await run(ReActAgent(llm=llm, tools=[tool_over(llm, 0)], streaming=streaming))
    ((_, selection),) = calls
    assert selection is None
    assert result.response.content == said_by_base_weights(asked[-1])
    assert result.tool_calls == []


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_adapters_of_a_tool_are_not_active_in_the_agents_later_calls(lm, store, llm, calls, streaming):
    planner = LooksItUpFirst(lm=lm, store=store, recipe="prag", max_adapters=3, max_new_tokens=12)
    assert planner.model is llm.model
    result, asked = await run(ReActAgent(llm=planner, tools=[tool_over(llm, 0)], streaming=streaming))
    (call,) = result.tool_calls
    assert [selection and selection.keys for _, selection in calls] == [None, (llm.model.key(TEXTS[0]),), None]
    assert call.tool_output.content == alone(llm, 0)
    assert observed(asked[-1]) == alone(llm, 0)
    assert result.response.content == said_by_base_weights(asked[-1])


async def test_agents_plan_on_base_weights_while_other_agents_tools_use_adapters(lm, store, llm, calls):
    planner = LooksItUpFirst(lm=lm, store=store, recipe="prag", max_adapters=3, max_new_tokens=12)
    agents = [ReActAgent(llm=planner, tools=[tool_over(llm, i % 3)]) for i in range(6)]
    found = await asyncio.gather(*[run(agent) for agent in agents])
    assert sum(selection is None for _, selection in calls) == 12
    assert sum(selection is not None for _, selection in calls) == 6
    for i, (result, asked) in enumerate(found):
        assert result.tool_calls[0].tool_output.content == alone(llm, i % 3)
        assert result.response.content == said_by_base_weights(asked[-1])
