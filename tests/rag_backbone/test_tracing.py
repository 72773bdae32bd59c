"""What is written to spans: types that OpenTelemetry has, and no text that is to be hidden."""

import json
import logging

import pytest
from openinference.instrumentation import TraceConfig
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from rag_backbone.tracing import SpanWriter, Text, document_attributes
from tests.spans import Spans

DOCUMENT = {"id": "p1", "text": "Built in 1871.", "score": 0.5, "metadata": {"title": "Ferry"}}


def written(attributes, config=None):
    spans = Spans()
    with spans.provider.get_tracer("test").start_as_current_span("span") as span:
        SpanWriter(config).write(span, lambda: attributes)
    return spans.named("span")[0]


def test_values_keep_their_type_or_become_json():
    found = written(
        {"a": 1, "b": 0.5, "c": True, "d": ["x", "y"], "e": {"p": 0.5}, "f": [1.0, None], "g": None, "h": []}
    )
    assert found == {
        "a": 1, "b": 0.5, "c": True, "d": ("x", "y"), "e": '{"p": 0.5}', "f": "[1.0, null]", "h": (),
    }  # fmt: skip


def test_documents_have_the_names_of_openinference():
    found = written(document_attributes([DOCUMENT, {"id": "p2", "text": "Two.", "score": None, "metadata": {}}]))
    assert found == {
        "retrieval.documents.0.document.id": "p1",
        "retrieval.documents.0.document.content": "Built in 1871.",
        "retrieval.documents.0.document.score": 0.5,
        "retrieval.documents.0.document.metadata": json.dumps({"title": "Ferry"}),
        "retrieval.documents.1.document.id": "p2",
        "retrieval.documents.1.document.content": "Two.",
    }


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({}, {"asked", "said", "document"}),
        ({"hide_inputs": True}, {"said", "document"}),
        ({"hide_input_text": True}, {"said", "document"}),
        ({"hide_outputs": True}, {"asked"}),
        ({"hide_output_text": True}, {"asked", "document"}),
        ({"hide_retrieval_documents": True}, {"asked", "said"}),
    ],
)
def test_text_is_hidden_as_the_configuration_says(config, left):
    attributes = {"asked": Text("Who?", "input"), "said": Text(["Joan."], "output"), "nothing": Text(None, "output")}
    found = written({**attributes, **document_attributes([DOCUMENT])}, TraceConfig(**config))
    seen = {"asked": "Who?", "said": ("Joan.",), "retrieval.documents.0.document.content": "Built in 1871."}
    shown = {
        name.replace("retrieval.documents.0.document.content", "document") for name in seen if found[name] == seen[name]
    }
    assert shown == left
    assert found["retrieval.documents.0.document.score"] == 0.5
    assert "nothing" not in found


def test_the_environment_hides_text_too(monkeypatch):
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    assert written({"asked": Text("Who?", "input"), "n": 1}) == {"asked": "__REDACTED__", "n": 1}


def test_nothing_is_computed_for_a_span_that_does_not_record():
    spans = Spans(sampler=ALWAYS_OFF)
    with spans.provider.get_tracer("test").start_as_current_span("span") as span:
        SpanWriter().write(span, lambda: pytest.fail("computed"))
    SpanWriter().write(None, lambda: pytest.fail("computed"))


def test_a_failure_is_logged_and_not_raised(caplog):
    spans = Spans()
    with caplog.at_level(logging.ERROR), spans.provider.get_tracer("test").start_as_current_span("span") as span:
        SpanWriter().write(span, lambda: {"a": 1 / 0})
    assert "could not be written" in caplog.text
