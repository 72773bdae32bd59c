"""A run of FLARE whose first sentence is discarded."""

import pytest

from langgraph_dynrag import AnswerPrompt, create_dynamic_rag
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the bridge?"


@pytest.fixture
def result():
    replies = [
        said("The bridge was built by Joan Pike. Then it was", Joan=0.1),
        said("The bridge was built by Aldous Wray. So it is"),
        said(" So the answer is Aldous Wray."),
    ]
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=replies), WatchedRetriever(), preset="flare", prompt=AnswerPrompt()
    )
    return graph.invoke({"question": QUESTION})
