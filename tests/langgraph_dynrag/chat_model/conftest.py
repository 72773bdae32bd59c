"""What the tests of the chat model share."""

import pytest

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel


@pytest.fixture
def chat(tiny_lm):
    return LocalChatModel.from_causal_lm(tiny_lm, max_tokens=200)
