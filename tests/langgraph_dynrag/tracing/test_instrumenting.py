"""Runs as OpenTelemetry traces: a span for each node, with what the node recorded."""

import asyncio

import pytest
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from langgraph_dynrag.events.events import DraftEvent, RetrievalEvent, VerdictEvent, events_of
from langgraph_dynrag.tracing import instrument, uninstrument
from tests.langgraph_dynrag.tracing.conftest import QUESTION
from tests.spans import Spans


def run(graph):
    return graph.invoke({"question": QUESTION})


def check_agrees(spans, result):
    """Check the spans of a run against the record in its state."""
    events = result["trace"]
    [verdict] = events_of(events, VerdictEvent)[:1]
    [monitor] = [s for s in spans.named("monitor") if "dynprag.verdict.score" in s][:1]
    assert monitor["dynprag.verdict.trigger"] == verdict["trigger"]
    assert monitor["dynprag.verdict.score"] == pytest.approx(verdict["score"])
    assert monitor["dynprag.verdict.threshold"] == verdict["threshold"]
    assert monitor["dynprag.verdict.retrieve"] is verdict["retrieve"] is True
    retrievals = events_of(events, RetrievalEvent)
    nodes = spans.named("retrieve")
    assert [node["dynprag.retrieval.query"] for node in nodes] == [r["query"] for r in retrievals]
    assert nodes[0]["dynprag.retrieval.query"] == QUESTION
    found = retrievals[0]["documents"][0]
    assert nodes[0]["retrieval.documents.0.document.content"] == found["text"]
    assert nodes[0]["retrieval.documents.0.document.id"] == found["id"]
    assert nodes[0]["retrieval.documents.0.document.score"] == pytest.approx(found["score"])
    drafts = [len(d["pieces"]) for d in events_of(events, DraftEvent)]
    assert [s["dynprag.draft.tokens"] for s in spans.named("generate") if "dynprag.draft.tokens" in s] == drafts
    assert spans.named("begin")[0]["dynprag.question.preset"] == "flare"


def test_each_node_is_a_span_that_says_what_the_node_recorded(flare, traced):
    result = run(flare)
    check_agrees(traced, result)
    names = {span.name for span in traced.all()}
    assert {"dynamic_rag", "begin", "generate", "monitor", "retrieve", "reformulate", "resume"} <= names
    for span in traced.all():
        if span.name in ("generate", "monitor", "retrieve"):
            assert traced.parent_of(span) == "dynamic_rag"
            assert span.attributes["openinference.span.kind"] == "CHAIN"
    assert [e for s in traced.all() for e in s.attributes.get("dynprag.events", ())] == [
        e["type"] for e in result["trace"]
    ]


def test_an_asynchronous_run_is_traced_in_the_same_way(flare, traced):
    check_agrees(traced, asyncio.run(flare.ainvoke({"question": QUESTION})))


def test_concurrent_runs_write_into_their_own_spans(flare, traced):
    asked = [f"When was the boat number {i} built?" for i in range(3)]
    flare.batch([{"question": question} for question in asked])
    traces = {}
    for span in traced.all():
        traces.setdefault(span.context.trace_id, []).append(span)
    first = [
        next(s.attributes["dynprag.retrieval.query"] for s in trace if s.name == "retrieve")
        for trace in traces.values()
        if any(s.name == "retrieve" for s in trace)
    ]
    assert sorted(first) == asked


def test_tokens_are_counted_on_the_spans_of_the_model_calls(flare, traced):
    run(flare)
    calls = [s for s in traced.all() if s.attributes["openinference.span.kind"] == "LLM"]
    assert calls
    assert all(s.attributes["llm.token_count.total"] > 0 for s in calls)
    nodes = [s for s in traced.named("generate") if "dynprag.usage.output_tokens" in s]
    assert sum(s["dynprag.usage.output_tokens"] for s in nodes) == sum(
        s.attributes["llm.token_count.completion"] for s in calls
    )


@pytest.mark.parametrize("how", ["config", "environment"])
def test_texts_can_be_hidden(flare, spans, monkeypatch, how):
    if how == "environment":
        for name in ("INPUTS", "OUTPUTS"):
            monkeypatch.setenv(f"OPENINFERENCE_HIDE_{name}", "true")
    hidden = TraceConfig(hide_inputs=True, hide_outputs=True) if how == "config" else None
    instrument(spans.provider, config=hidden)
    run(flare)
    written = [str(value) for s in spans.all() for name, value in s.attributes.items() if name.startswith("dynprag.")]
    written += [str(s.attributes.get("retrieval.documents.0.document.content")) for s in spans.all()]
    assert not any("Patient" in text or "Lodmoor" in text for text in written)
    assert spans.named("monitor")[0]["dynprag.verdict.score"] is not None
    assert spans.named("retrieve")[0]["dynprag.retrieval.query"] == "__REDACTED__"


def test_nothing_is_computed_for_runs_that_are_not_sampled(flare, monkeypatch):
    instrument(Spans(sampler=ALWAYS_OFF).provider)
    monkeypatch.setattr("langgraph_dynrag.tracing.instrumenting.node_attributes", lambda _: pytest.fail("computed"))
    try:
        assert run(flare)["trace"]
    finally:
        uninstrument()


def test_untraced_runs_call_nothing_and_traced_runs_answer_the_same(flare, spans, monkeypatch):
    before = run(flare)
    instrument(spans.provider)
    assert run(flare)["answer"] == before["answer"]
    uninstrument()
    seen = len(spans.all())
    monkeypatch.setattr("langgraph_dynrag.tracing.instrumenting.node_attributes", lambda _: pytest.fail("computed"))
    run(flare)
    assert len(spans.all()) == seen


def test_a_second_call_changes_nothing_and_an_existing_instrumentation_is_kept(flare, spans):
    LangChainInstrumentor().instrument(tracer_provider=spans.provider)
    try:
        instrument(Spans().provider)
        instrument(Spans().provider)
        run(flare)
        assert "dynprag.verdict.score" in spans.named("monitor")[0]
        uninstrument()
        assert LangChainInstrumentor().is_instrumented_by_opentelemetry
    finally:
        LangChainInstrumentor().uninstrument()
