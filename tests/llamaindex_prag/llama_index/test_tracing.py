"""Parametric queries as OpenTelemetry traces: documents, adapters, route and scores."""

import asyncio
import json

import pytest
from llama_index.core.instrumentation import get_dispatcher
from openinference.instrumentation import TraceConfig

from llamaindex_prag.llama_index.tracing import instrument, uninstrument
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS, Fixed, engine_of
from tests.spans import Spans


@pytest.fixture
def spans():
    collected = Spans()
    yield collected
    uninstrument()


def engine(llm, *numbers):
    return engine_of(llm, Fixed(*numbers), post={"missing": "context", "route": "lexical", "max_active": None})


def injection(spans):
    """Return the span that has the adapters."""
    [span] = [s for s in spans.all() if "dynprag.injection.in_weights" in s.attributes]
    return span


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_says_which_documents_it_found_and_whose_adapters_act(llm, spans, asynchronous):
    instrument(spans.provider)
    asked = engine(llm, 0, 1, 3)
    response = asyncio.run(asked.aquery(QUESTION)) if asynchronous else asked.query(QUESTION)
    span = injection(spans)
    acting = [n.node.node_id for n in response.source_nodes if n.metadata["dynprag"]["used"] == "adapter"]
    assert list(span.attributes["dynprag.injection.in_weights"]) == acting == ["node-0"]
    assert span.attributes["dynprag.injection.mode"] == "parametric"
    assert span.attributes["dynprag.injection.route"] == "lexical"
    assert span.attributes["dynprag.injection.strength"] == 1.0
    assert set(json.loads(span.attributes["dynprag.injection.routing"])) == {"node-0", "node-1", "node-3"}
    assert "node-1" in json.loads(span.attributes["dynprag.injection.left_out"])
    retrieved = [s for s in spans.all() if "retrieval.documents.0.document.id" in s.attributes]
    assert retrieved[0].attributes["retrieval.documents.0.document.content"] == TEXTS[0]
    assert retrieved[0].attributes["retrieval.documents.0.document.score"] == pytest.approx(0.9)
    assert {s.context.trace_id for s in spans.all()} == {span.context.trace_id}


def test_texts_can_be_hidden(llm, spans):
    instrument(spans.provider, config=TraceConfig(hide_inputs=True, hide_outputs=True))
    engine(llm, 0, 1).query(QUESTION)
    assert injection(spans).attributes["dynprag.injection.strength"] == 1.0
    for span in spans.all():
        shown = [
            str(v) for k, v in span.attributes.items() if k.startswith(("dynprag.", "retrieval.", "input", "output"))
        ]
        assert not any(text in value for value in shown for text in (QUESTION, *TEXTS))


def test_uninstrument_leaves_nothing_behind(llm, spans):
    before = list(get_dispatcher().event_handlers)
    instrument(spans.provider)
    instrument(spans.provider)
    uninstrument()
    assert list(get_dispatcher().event_handlers) == before
    engine(llm, 0).query(QUESTION)
    assert spans.all() == []
