"""What LangSmith and Langfuse are sent if they are set up as docs/traces.md says; a server on this machine takes it."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from langgraph_dynrag.tracing import instrument, uninstrument
from tests.langgraph_dynrag.tracing.conftest import QUESTION
from tests.langgraph_dynrag.tracing.receiver import receiving

PAGE = (Path(__file__).parents[3] / "docs/traces.md").read_text("utf-8")
NODES = {"dynamic_rag", "begin", "retrieve", "reformulate", "resume", "generate", "monitor"}
KEYS = {
    "LANGFUSE_PUBLIC_KEY": "pk-lf-" + "1" * 36,
    "LANGFUSE_SECRET_KEY": "sk-lf-" + "2" * 36,
    "LANGSMITH_API_KEY": "lsv2",
}


def as_the_page_says(section, url):
    """Return the variables in a section of the page, as a shell sets them, for a receiver at this address."""
    text = PAGE.partition(f"\n### {section}\n")[2].partition("\n#")[0]
    block = re.search(r"```console\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`(OTEL_\w+=[^`]+)`", text)
    shown = "\n".join([block[1]] if block else [f"export {line}" for line in inline]) + "\nenv -0"
    told = subprocess.run(["bash", "-c", shown], env=os.environ | KEYS, capture_output=True, text=True, check=True)
    variables = dict(line.partition("=")[::2] for line in told.stdout.split("\0"))
    address = variables["OTEL_EXPORTER_OTLP_ENDPOINT"]
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": re.sub(r"^https://[\w.]+", url, address),
        "OTEL_EXPORTER_OTLP_HEADERS": variables["OTEL_EXPORTER_OTLP_HEADERS"],
    }


LANGFUSE = base64.b64encode(f"{KEYS['LANGFUSE_PUBLIC_KEY']}:{KEYS['LANGFUSE_SECRET_KEY']}".encode()).decode()


@pytest.mark.parametrize(
    ("section", "path", "headers"),
    [
        (
            "Langfuse",
            "/api/public/otel/v1/traces",
            {"authorization": f"Basic {LANGFUSE}", "x-langfuse-ingestion-version": "4"},
        ),
        ("LangSmith", "/otel/v1/traces", {"x-api-key": KEYS["LANGSMITH_API_KEY"]}),
    ],
)
def test_spans_arrive_with_the_keys_and_with_what_the_nodes_recorded(flare, monkeypatch, section, path, headers):
    with receiving() as receiver:
        for name, given in as_the_page_says(section, receiver.url).items():
            monkeypatch.setenv(name, given)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        instrument(provider)
        try:
            result = flare.invoke({"question": QUESTION})
        finally:
            uninstrument()
            provider.shutdown()
    assert receiver.requests
    for asked, sent, _ in receiver.requests:
        assert asked == path
        assert headers.items() <= {name.lower(): value for name, value in sent.items()}.items()
    spans = receiver.spans()
    assert {name for name, _ in spans} >= NODES
    verdict = next(event for event in result["trace"] if event["type"] == "verdict")
    monitor = next(attributes for name, attributes in spans if name == "monitor")
    assert monitor["dynprag.verdict.score"] == pytest.approx(verdict["score"])
    assert monitor["dynprag.verdict.retrieve"] is True
    retrieve = next(attributes for name, attributes in spans if name == "retrieve")
    assert retrieve["dynprag.retrieval.query"] == QUESTION
    assert retrieve["retrieval.documents.0.document.id"] == "anna"


def test_langsmith_is_sent_the_nodes_and_their_events_by_its_own_callbacks():
    with receiving() as receiver:
        variables = {"LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": receiver.url, **KEYS}
        command = [sys.executable, "-m", "tests.langgraph_dynrag.tracing.asking"]
        told = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    recorded = json.loads(told.stdout)
    assert {sent["x-api-key"] for _, sent, _ in receiver.requests} == {KEYS["LANGSMITH_API_KEY"]}
    runs = list(receiver.runs().values())
    assert {run["name"] for run in runs} >= NODES
    assert {run["run_type"] for run in runs} >= {"chain", "retriever", "llm"}
    assert len({run["trace_id"] for run in runs}) == 1
    assert all(run["end_time"] and not run.get("error") for run in runs)
    [root] = [run for run in runs if run["name"] == "dynamic_rag"]
    assert root["outputs"]["trace"] == recorded
    nodes = sorted((run for run in runs if run["name"] in NODES - {"dynamic_rag"}), key=lambda run: run["dotted_order"])
    outputs = [(run["name"], run["outputs"].get("trace", [])) for run in nodes]
    events = [event for name, trace in outputs for event in (trace["value"] if name == "begin" else trace)]
    assert events == recorded
    assert {"question", "draft", "verdict", "retrieval"} <= {event["type"] for event in events}
