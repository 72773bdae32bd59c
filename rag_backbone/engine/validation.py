"""What an engine refuses before the first forward, and how it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import transformers

from rag_backbone.engine.adapters import AdapterBackend, AdapterSet
from rag_backbone.engine.attention import TRIED_WITH
from rag_backbone.engine.signals import SignalName
from rag_backbone.errors import AdapterError, ContextWindowError, SignalUnavailableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_window(window: int, tokens: int) -> None:
    """Refuse more tokens than the context window has."""
    if tokens > window:
        raise ContextWindowError(
            f"{tokens} tokens do not fit into the model's context window of {window}. "
            "Shorten the prompt, or give it less evidence."
        )


def check_signal(name: SignalName, available: frozenset[SignalName], model: PreTrainedModel) -> None:
    """Refuse a signal that the model cannot give."""
    if name not in available:
        raise SignalUnavailableError(
            f"{type(model).__name__} cannot give the signal {name!r}: its last layer's attention is not a "
            f"plain softmax that dynprag can record with transformers {transformers.__version__} (tried with "
            f"{' to '.join(TRIED_WITH)}). Available: {', '.join(sorted(available))}."
        )


def check_adapters(adapters: AdapterSet | None, backend: AdapterBackend | None) -> None:
    """Refuse adapters that nothing can apply."""
    if adapters is not None and backend is None:
        raise AdapterError("adapters were requested, but none can be attached: call engine.attach(backend) first")
