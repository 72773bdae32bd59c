"""Checks that an engine makes before the first forward pass, and their error messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import transformers

from rag_backbone.engine.adapters import AdapterBackend, AdapterSet
from rag_backbone.engine.attention import TRIED_WITH
from rag_backbone.engine.ensemble import AdapterEnsemble
from rag_backbone.engine.signals import SignalName
from rag_backbone.errors import AdapterError, ConfigurationError, ContextWindowError, SignalUnavailableError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def check_window(window: int, tokens: int) -> None:
    """Refuse a number of tokens that exceeds the context window."""
    if tokens > window:
        raise ContextWindowError(
            f"{tokens} tokens do not fit into the model's context window of {window}. "
            "Shorten the prompt, or give it less evidence."
        )


def check_signal(name: SignalName, available: frozenset[SignalName], model: PreTrainedModel) -> None:
    """Refuse a signal that the model cannot provide."""
    if name not in available:
        raise SignalUnavailableError(
            f"{type(model).__name__} cannot provide the signal {name!r}: its last layer's attention is not a "
            f"plain softmax that dynprag can record with transformers {transformers.__version__} (tested with "
            f"{' to '.join(TRIED_WITH)}). Available: {', '.join(sorted(available))}."
        )


def check_one_set(adapters: AdapterSet | None) -> None:
    """Refuse an ensemble where the signals of a single forward pass are wanted."""
    if isinstance(adapters, AdapterEnsemble):
        raise ConfigurationError(
            f"the adapters are an ensemble of {len(adapters)}, which can generate, but scores, attention and hidden "
            "states belong to a single forward pass; pass one of its members, or merge the adapters"
        )


def check_adapters(adapters: AdapterSet | None, backend: AdapterBackend | None) -> None:
    """Refuse adapters if no backend can apply them."""
    if adapters is not None and backend is None:
        raise AdapterError("adapters were requested, but no backend is attached; call engine.attach(backend) first")


def check_device(model: PreTrainedModel, device: torch.device) -> None:
    """Refuse a model that was moved after keys, values or adapters were placed on its first device."""
    if model.device != device:
        raise ConfigurationError(
            f"the model was moved from {device} to {model.device} after it was loaded, but its adapters and cached "
            f"keys and values are on {device}; move it back, or load it there: CausalLM.from_pretrained(name, "
            f"device={str(model.device)!r})"
        )
