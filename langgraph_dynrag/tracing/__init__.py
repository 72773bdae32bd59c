"""OpenTelemetry traces by the OpenInference conventions: spans of nodes with what the run's events say.

The record that a state carries, and its HTML page, are in `langgraph_dynrag.trace`.
"""

from langgraph_dynrag.tracing.instrumenting import instrument, uninstrument

__all__ = ["instrument", "uninstrument"]
