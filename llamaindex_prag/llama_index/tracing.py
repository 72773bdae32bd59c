"""`instrument`: have every query traced with OpenTelemetry. Needs the extra `tracing`.

LlamaIndex's OpenInference instrumentor creates the spans. The span of `ParametricNodePostprocessor` then gets what
`AdaptersInjectedEvent` says: whose adapters act, with which scores, and why the others do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers.base import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.trace import TracerProvider, get_current_span

from llamaindex_prag.llama_index.postprocessor import AdaptersInjectedEvent
from rag_backbone.tracing import Instrumentation, SpanWriter, Text


def instrument(tracer_provider: TracerProvider | None = None, *, config: TraceConfig | None = None) -> None:
    """Trace every LlamaIndex query in this process with OpenTelemetry, by the OpenInference conventions.

    The postprocessor's span has the nodes whose adapters act, the strength, the route's scores, and the reasons of the
    others. LlamaIndex is instrumented too, unless it is already. A second call changes nothing.

    Args:
        tracer_provider: Where spans go; None for OpenTelemetry's global one, which `phoenix.otel.register()` sets, for
            example. It is not used if LlamaIndex is already instrumented.
        config: Which texts to leave out of the spans, such as `TraceConfig(hide_outputs=True)` of
            `openinference.instrumentation`; None for the environment variables `OPENINFERENCE_HIDE_INPUTS`,
            `OPENINFERENCE_HIDE_OUTPUTS` and others.

    Raises:
        MissingExtraError: If the extra `tracing` is not installed.

    Example:
        >>> from llamaindex_prag import instrument
        >>> instrument()  # doctest: +SKIP
        >>> query_engine.query("Who commanded the Patient Anna?")  # doctest: +SKIP
    """
    _instrumentation.begin(tracer_provider, config)


def uninstrument() -> None:
    """Stop tracing.

    LlamaIndex's instrumentation is removed if `instrument` added it. Without a call of `instrument`, nothing happens.
    """
    _instrumentation.end()


def _add(writer: SpanWriter) -> Callable[[], None]:
    handler, dispatcher = _AdaptersOfSpan(writer), get_dispatcher()
    dispatcher.add_event_handler(handler)

    def end() -> None:
        dispatcher.event_handlers = [known for known in dispatcher.event_handlers if known is not handler]

    return end


class _AdaptersOfSpan(BaseEventHandler):
    """Writes an injection's adapters into the span in which it happens."""

    _writer: SpanWriter = PrivateAttr()

    def __init__(self, writer: SpanWriter) -> None:
        super().__init__()
        self._writer = writer

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in traces."""
        return "AdaptersOfSpan"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """Write the attributes, if the event is an injection."""
        if isinstance(event, AdaptersInjectedEvent):
            self._writer.write(get_current_span(), lambda: injection_attributes(event))


def injection_attributes(event: AdaptersInjectedEvent) -> dict[str, Any]:
    """Return the attributes of an injection, named after the fields that graphs record: `dynprag.injection.*`."""
    fields = {
        "mode": event.mode,
        "route": event.route,
        "in_weights": event.injected,
        "beside_text": event.beside_text,
        "in_prompt_because": event.in_context or None,
        "left_out": event.left_out or None,
        "trained": event.trained,
        "translated": event.translated,
        "strength": event.strength,
        "forgetting": event.forgetting,
        "routing": event.routing,
        "asked": Text(event.asked, "output"),
        "conflicts": Text(event.conflicts, "output"),
    }
    return {f"dynprag.injection.{name}": value for name, value in fields.items()}


_instrumentation = Instrumentation(LlamaIndexInstrumentor(), _add)
