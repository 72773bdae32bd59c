"""Tests of `ParametricLLM` with chat templates that reject system messages or require alternating roles."""

import copy

import pytest
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool

from langgraph_dynrag.chat_model.chat_template import encode_chat
from llamaindex_prag.llama_index import ParametricNodePostprocessor
from llamaindex_prag.prompts import conversation_ids
from rag_backbone.errors import AdapterError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.llama_index.conftest import Fixed
from tests.rag_backbone.text.test_chat_templates import DROPS_SYSTEM, GEMMA, MISTRAL, PARTS, TEMPLATES
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def lm():
    """A tiny model with a separate tokenizer, whose template a test can replace."""
    return CausalLM(tiny_llama(), copy.deepcopy(tiny_tokenizer()), name="tiny-gemma")


@pytest.mark.parametrize("template", [GEMMA, MISTRAL, DROPS_SYSTEM, PARTS, None])
async def test_all_chat_methods_accept_a_system_message(llm, calls, template):
    llm.model.lm.tokenizer.chat_template = template
    messages = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Who came?")]
    whole = llm.chat(messages).message.content
    assert (await llm.achat(messages)).message.content == whole
    assert [r.message.content for r in llm.stream_chat(messages)][-1] == whole
    assert [r.message.content async for r in await llm.astream_chat(messages)][-1] == whole
    assert len(calls) == 4
    assert all("Be brief." in prompt and "Who came?" in prompt for prompt, _ in calls)


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine, SimpleChatEngine])
def test_chat_engines_work_with_a_template_without_system_messages(llm, calls, kind):
    llm.model.lm.tokenizer.chat_template = GEMMA
    options = {"llm": llm, "memory": ChatMemoryBuffer.from_defaults(token_limit=900)}
    if kind is not SimpleChatEngine:
        post = ParametricNodePostprocessor(llm=llm, missing="error")
        options |= {"retriever": Fixed(0), "node_postprocessors": [post]}
    chat = kind.from_defaults(**options, system_prompt="You are terse.")
    chat.chat("Who came?")
    list(chat.stream_chat("And when?").response_gen)
    assert any("You are terse." in prompt for prompt, _ in calls)


async def test_a_react_agent_works_with_a_template_without_system_messages(llm, calls):
    llm.model.lm.tokenizer.chat_template = GEMMA

    def bridges(town: str) -> str:
        """Count the bridges of a town."""
        return "41"

    agent = ReActAgent(tools=[FunctionTool.from_defaults(bridges)], llm=llm, streaming=False)
    await agent.run("How many bridges?", max_iterations=2)
    assert calls
    assert all("bridges" in prompt for prompt, _ in calls)


def test_the_error_of_a_template_that_rejects_everything_names_the_model(llm):
    llm.model.lm.tokenizer.chat_template = "{{ raise_exception('never') }}"
    messages = [ChatMessage(role="system", content="S"), ChatMessage(role="user", content="A")]
    for call in (
        lambda: llm.chat(messages),
        lambda: list(llm.stream_chat(messages)),
        lambda: llm.complete("Who came?"),
        lambda: list(llm.stream_complete("Who came?")),
    ):
        with pytest.raises(AdapterError, match="chat template of tiny-gemma refuses"):
            call()


@pytest.mark.parametrize("kind", TEMPLATES)
def test_both_packages_build_the_same_prompt(kind):
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = TEMPLATES[kind]
    turns = [SystemMessage("S."), HumanMessage("Who?"), AIMessage("He."), HumanMessage("When?")]
    spoken = [("system", "S."), ("user", "Who?"), ("assistant", "He."), ("user", "When?")]
    assert encode_chat(tokenizer, turns).ids == conversation_ids(tokenizer, spoken)
