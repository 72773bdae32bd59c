"""Spans of a `flare` run and of a parametric query, exported to a real Phoenix server and read back from it.

DYNPRAG_PHOENIX_COMMAND   the `phoenix` command of an environment with `arize-phoenix`; `make test-phoenix` creates one
DYNPRAG_PHOENIX_URL       the address of a server that runs already, in its place
"""

import json
import os
from types import SimpleNamespace

import pytest
from langchain_core.documents import Document
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import langgraph_dynrag.tracing
import llamaindex_prag.llama_index.tracing
from langgraph_dynrag import BM25Retriever, Budgets, LocalChatModel, Trace, create_dynamic_rag
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.llama_index import ParametricLLM
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone import CausalLM
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS, Fixed, engine_of
from tests.llamaindex_prag.made import random_values
from tests.phoenix.server import PhoenixServer
from tests.tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.phoenix


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory):
    if url := os.environ.get("DYNPRAG_PHOENIX_URL"):
        server = PhoenixServer("", tmp_path_factory.mktemp("phoenix"))
        server.url = url
        yield server
        return
    command = os.environ.get("DYNPRAG_PHOENIX_COMMAND")
    if not command:
        pytest.skip("DYNPRAG_PHOENIX_COMMAND is not set: it starts a Phoenix server (make test-phoenix)")
    server = PhoenixServer(command, tmp_path_factory.mktemp("phoenix"))
    yield server.start()
    server.stop()


@pytest.fixture
def project(phoenix, request):
    """A project of the server, and a tracer provider that exports to it."""
    name = f"dynprag-{request.node.name}-{os.getpid()}"
    provider = TracerProvider(resource=Resource({"openinference.project.name": name}))
    sent = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(sent))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{phoenix.url}/v1/traces")))

    def spans():
        provider.force_flush()
        return phoenix.spans(name, len(sent.get_finished_spans()))

    yield SimpleNamespace(provider=provider, spans=spans, name=name)
    langgraph_dynrag.tracing.uninstrument()
    llamaindex_prag.llama_index.tracing.uninstrument()
    provider.shutdown()


def attributes(spans, name):
    """Return the attributes of the spans with a name, in the order of their start."""
    return [s["attributes"] for s in sorted(spans, key=lambda s: s["start_time"]) if s["name"] == name]


def test_a_flare_run_arrives_with_its_scores(project):
    lm = CausalLM(tiny_llama(max_position_embeddings=1 << 14), tiny_tokenizer(), name="tiny")
    ferry = Document("The Patient Anna was built in 1974 at Lodmoor.", id="anna", metadata={"title": "Patient Anna"})
    mayor = Document("Odile Marrash is the mayor of Tarn Ellis.", id="tarn", metadata={"title": "Tarn Ellis"})
    graph = create_dynamic_rag(
        LocalChatModel.from_causal_lm(lm),
        BM25Retriever.from_documents([ferry, mayor]),
        preset="flare",
        k=1,
        budgets=Budgets(retrievals=2, tokens=12),
    )
    langgraph_dynrag.tracing.instrument(project.provider)
    trace = Trace.from_state(graph.invoke({"question": "When was the Patient Anna built?"}))
    spans = project.spans()
    verdict = next(e for e in trace.events if e["type"] == "verdict")
    monitor = attributes(spans, "monitor")[0]
    assert monitor["dynprag.verdict.score"] == pytest.approx(verdict["score"])
    assert monitor["dynprag.verdict.threshold"] == verdict["threshold"]
    found = trace.retrievals[0]["documents"][0]
    retrieve = attributes(spans, "retrieve")[0]
    assert retrieve["dynprag.retrieval.query"] == "When was the Patient Anna built?"
    assert retrieve["retrieval.documents.0.document.id"] == "anna"
    assert retrieve["retrieval.documents.0.document.content"] == found["text"]
    assert retrieve["retrieval.documents.0.document.score"] == pytest.approx(found["score"])
    models = [s["attributes"] for s in spans if s["span_kind"] == "LLM"]
    assert sum(m["llm.token_count.completion"] for m in models) == trace.usage.tokens["output_tokens"]
    assert len({s["context"]["trace_id"] for s in spans}) == 1


def test_a_parametric_query_arrives_with_its_adapters_and_scores(project, tmp_path):
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:
        llm = ParametricLLM(lm=lm, store=store, recipe="prag", max_new_tokens=12)
        for i, text in enumerate(TEXTS[:2]):
            values = random_values(llm.model.layout, i, 0.1)
            store.put(llm.model.key(text), Adapter(llm.model.layout, values, 2.0), {}, owners=[f"doc-{i}"])
        engine = engine_of(llm, Fixed(0, 1), post={"missing": "context", "route": "lexical", "max_active": None})
        llamaindex_prag.llama_index.tracing.instrument(project.provider)
        engine.query(QUESTION)
    spans = project.spans()
    [injection] = [s["attributes"] for s in spans if "dynprag.injection.route" in s["attributes"]]
    assert injection["dynprag.injection.in_weights"] == ["node-0"]
    assert set(json.loads(injection["dynprag.injection.routing"])) == {"node-0", "node-1"}
    [retriever] = [s["attributes"] for s in spans if "retrieval.documents.0.document.id" in s["attributes"]]
    assert [retriever[f"retrieval.documents.{i}.document.score"] for i in (0, 1)] == pytest.approx([0.9, 0.8])
    assert any(s["span_kind"] == "LLM" for s in spans)
