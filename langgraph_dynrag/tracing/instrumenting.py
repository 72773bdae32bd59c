"""`instrument`: have every run of a graph traced with OpenTelemetry.

LangChain's OpenInference instrumentor creates the spans: one for the run, for each node, retriever and model call. A
node's span then gets what the node recorded (`langgraph_dynrag.tracing.attributes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from langchain_core.runnables import RunnableConfig
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.trace import Span, TracerProvider

from langgraph_dynrag.events.events import Event
from langgraph_dynrag.events.observers import Observer, add_observer, remove_observer
from langgraph_dynrag.tracing.attributes import node_attributes
from rag_backbone.tracing import Instrumentation, SpanWriter


def instrument(tracer_provider: TracerProvider | None = None, *, config: TraceConfig | None = None) -> None:
    """Trace every run of a graph in this process with OpenTelemetry, by the OpenInference conventions.

    Each node is a span with what it recorded: trigger, score and threshold, queries, documents with their scores, and
    adapters. LangChain is instrumented too, unless it is already. A second call changes nothing.

    Args:
        tracer_provider: Where spans go; None for OpenTelemetry's global one, which `phoenix.otel.register()` sets, for
            example. It is not used if LangChain is already instrumented.
        config: Which texts to leave out of the spans, such as `TraceConfig(hide_inputs=True)` of
            `openinference.instrumentation`; None for the environment variables `OPENINFERENCE_HIDE_INPUTS`,
            `OPENINFERENCE_HIDE_OUTPUTS` and others.

    Raises:
        MissingExtraError: If the extra `tracing` is not installed.

    Example:
        >>> from langgraph_dynrag import instrument
        >>> instrument()  # doctest: +SKIP
        >>> graph.invoke({"question": "Who commanded the Patient Anna?"})  # doctest: +SKIP
    """
    _instrumentation.begin(tracer_provider, config)


def uninstrument() -> None:
    """Stop tracing.

    LangChain's instrumentation is removed if `instrument` added it. Without a call of `instrument`, nothing happens.
    """
    _instrumentation.end()


def _add(writer: SpanWriter) -> Callable[[], None]:
    observer: Observer = partial(_observe, writer)
    add_observer(observer)
    return partial(remove_observer, observer)


def _observe(writer: SpanWriter, events: Sequence[Event], config: RunnableConfig) -> None:
    writer.write(_span_of(config), lambda: node_attributes(events))


def _span_of(config: RunnableConfig) -> Span | None:
    """Return the span of the node that was called with this config; None outside of a traced run."""
    run = getattr(config.get("callbacks"), "parent_run_id", None)
    return None if run is None else LangChainInstrumentor().get_span(run)


_instrumentation = Instrumentation(LangChainInstrumentor(), _add)
