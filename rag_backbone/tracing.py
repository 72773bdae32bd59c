"""Attributes of OpenTelemetry spans by the OpenInference conventions. Needs the extra `tracing`.

Spans themselves come from OpenInference's instrumentors; the packages add to them what only they know. Values are
computed only for spans that record. Text is hidden as OpenInference's `TraceConfig` says, whose defaults are the
environment variables `OPENINFERENCE_HIDE_INPUTS`, `OPENINFERENCE_HIDE_OUTPUTS` and others.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from openinference.instrumentation import REDACTED_VALUE, TraceConfig
from openinference.semconv.trace import DocumentAttributes, SpanAttributes
from opentelemetry.trace import Span, TracerProvider

logger = logging.getLogger(__name__)

Side = Literal["input", "output"]
_PLAIN = (str, bool, int, float)


@dataclass(frozen=True, slots=True)
class Text:
    """A value that holds text of the user (`"input"`) or of the model and its documents (`"output"`)."""

    value: Any
    side: Side


class SpanWriter:
    """Writes attributes to spans.

    Args:
        config: Which texts to hide; None for what the environment variables say.
    """

    def __init__(self, config: TraceConfig | None = None) -> None:
        self.config = config or TraceConfig()

    def write(self, span: Span | None, attributes: Callable[[], Mapping[str, Any]]) -> None:
        """Write attributes to a span that records. A failure is logged, because tracing must not end a run.

        Args:
            span: The span; None if there is none.
            attributes: Returns the values by name; called only if the span records. None is left out, and what
                OpenTelemetry has no type for is written as JSON.
        """
        if span is None or not span.is_recording():
            return
        try:
            for name, value in attributes().items():
                shown = self._shown(name, value)
                if shown is not None:
                    span.set_attribute(name, shown)
        except Exception:
            logger.exception("the attributes of the span %s could not be written", span)

    def _shown(self, name: str, value: Any) -> Any:
        if isinstance(value, Text):
            hidden = (
                self.config.hide_inputs or self.config.hide_input_text
                if value.side == "input"
                else self.config.hide_outputs or self.config.hide_output_text
            )
            value = REDACTED_VALUE if hidden and value.value is not None else value.value
        return None if value is None else self.config.mask(name, _plain(value))


class Instrumentor(Protocol):
    """What all OpenInference instrumentors offer."""

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether the framework is instrumented."""

    def instrument(self, **options: Any) -> Any:
        """Instrument the framework."""

    def uninstrument(self) -> Any:
        """Remove the instrumentation."""


class Instrumentation:
    """An OpenInference instrumentor, and what a package adds to the spans that it creates. Threads can share it.

    Args:
        instrumentor: The instrumentor of a framework.
        add: Begins to add attributes with a writer, and returns a function that ends it.
    """

    def __init__(self, instrumentor: Instrumentor, add: Callable[[SpanWriter], Callable[[], None]]) -> None:
        self._instrumentor, self._add = instrumentor, add
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []

    def begin(self, tracer_provider: TracerProvider | None, config: TraceConfig | None) -> None:
        """Instrument the framework, unless it is already, and begin to add attributes; a second call does nothing."""
        config = config or TraceConfig()
        with self._lock:
            if self._ends:
                return
            if not self._instrumentor.is_instrumented_by_opentelemetry:
                self._instrumentor.instrument(tracer_provider=tracer_provider, config=config)
                self._ends.append(self._instrumentor.uninstrument)
            self._ends.append(self._add(SpanWriter(config)))

    def end(self) -> None:
        """End what `begin` began; without it, do nothing."""
        with self._lock:
            while self._ends:
                self._ends.pop()()


def document_attributes(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `retrieval.documents.N.document.*` of documents with `id`, `text`, `score` and `metadata`."""
    found: dict[str, Any] = {}
    for i, document in enumerate(documents):
        name = f"{SpanAttributes.RETRIEVAL_DOCUMENTS}.{i}."
        found[name + DocumentAttributes.DOCUMENT_ID] = document.get("id")
        found[name + DocumentAttributes.DOCUMENT_CONTENT] = document.get("text")
        found[name + DocumentAttributes.DOCUMENT_SCORE] = document.get("score")
        if metadata := document.get("metadata"):
            found[name + DocumentAttributes.DOCUMENT_METADATA] = json.dumps(metadata, default=str)
    return found


def _plain(value: Any) -> Any:
    """Return a value in a form that OpenTelemetry accepts: a scalar, a list of scalars of one type, or JSON."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple) and len({type(item) for item in value}) <= 1:
        items = list(value)
        if not items or isinstance(items[0], _PLAIN):
            return items
    return json.dumps(value, ensure_ascii=False, default=str)
