"""The in-process generator, and the choice of a generator for a chat model."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langgraph_dynrag.generators.local import LocalGenerator


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage("Who?")],
        [SystemMessage("Answer."), HumanMessage("Who?"), AIMessage("Nobody."), HumanMessage("Why?")],
        [HumanMessage("Who?"), AIMessage("It was")],
        [HumanMessage([{"type": "text", "text": "Who?"}])],
    ],
)
def test_token_counts_match_the_encoded_conversation(local, messages):
    generator = LocalGenerator(local)
    for _ in range(2):
        assert generator.prompt_tokens(messages) == len(local.encode(messages).ids)
        assert generator.count_tokens("Who built it?") == len(local.get_token_ids("Who built it?"))
