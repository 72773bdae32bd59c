"""The progress of training is sent as events, shown and logged."""

from typing import ClassVar

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_prag.llama_index import ParametricNodePostprocessor, ParametrizeNodes
from llamaindex_prag.llama_index.training_events import AdapterTrainingEvent
from tests.llamaindex_prag.llama_index.conftest import TEXTS


class Heard(BaseEventHandler):
    events: ClassVar[list] = []

    @classmethod
    def class_name(cls) -> str:
        return "Heard"

    def handle(self, event, **_):
        if isinstance(event, AdapterTrainingEvent):
            self.events.append(event)


@pytest.fixture
def heard():
    handler = Heard()
    handler.events.clear()
    get_dispatcher().add_event_handler(handler)
    yield handler.events
    get_dispatcher().event_handlers.remove(handler)


def test_progress_is_shown_and_sent_unless_it_is_disabled(llm, heard, capsys):
    nodes = [TextNode(text=f"In {1900 + i} the river rose in the town of Number {i}.") for i in range(3)]
    ParametrizeNodes(llm=llm, progress=False)(nodes[:1])
    ParametrizeNodes(llm=llm)(nodes[1:2], show_progress=False)
    assert (heard, capsys.readouterr().err) == ([], "")
    told = ParametrizeNodes(llm=llm)
    assert told.estimate(nodes).documents == 1
    told(nodes)
    assert "1/1 documents" in capsys.readouterr().err
    assert (heard[0].part, heard[0].of, heard[-1].made) == (0.0, 1, 1)
    assert heard[0].left == heard[0].estimated > 0


def test_a_query_that_waits_for_training_is_logged(llm, heard, caplog):
    found = NodeWithScore(node=TextNode(text=TEXTS[3], metadata={"title": "Roads"}), score=1.0)
    ParametricNodePostprocessor(llm=llm).postprocess_nodes([found], query_str="Who built a road?")
    (warned,) = [r.message for r in caplog.records if r.levelname == "WARNING" and "waits" in r.message]
    assert found.node.node_id in warned
    assert "is trained: about" in warned
    assert (heard[0].part, heard[-1].part) == (0.0, pytest.approx(1.0))
    assert heard[0].documents == [found.node.node_id]
