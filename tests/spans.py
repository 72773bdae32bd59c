"""The spans of a test, as OpenTelemetry's own exporter in memory collects them."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """A tracer provider whose finished spans can be read."""

    def __init__(self, sampler=None):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self):
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name):
        """Return the attributes of the spans with a name, in the order of their start."""
        return [dict(span.attributes) for span in self.all() if span.name == name]

    def parent_of(self, span):
        return next((s.name for s in self.all() if span.parent and s.context.span_id == span.parent.span_id), None)
