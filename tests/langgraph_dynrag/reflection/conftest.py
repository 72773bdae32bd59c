"""A model with reflection tokens, and a retriever for its questions."""

import pytest

from tests.langgraph_dynrag.reflective import reflective_chat, search
from tests.langgraph_dynrag.scripted import WatchedRetriever


@pytest.fixture
def chat():
    return reflective_chat()


@pytest.fixture
def retriever():
    return WatchedRetriever(give=search)
