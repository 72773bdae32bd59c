"""The last layer's attention weights, without eager attention and without a second forward pass.

Every layer keeps its fast kernel. The attention function that transformers looks up by name is replaced,
for one forward at a time, by one that calls the original kernel and, in the last attention layer alone,
also computes the softmax weights of the last few queries.

Which models this is right for is not a list of names: the weights are tried out once on a few tokens and
must reproduce the kernel's own output. Soft-capping, sinks, latent attention or a layer that does not go
through the registry fail that test, and then the signal is not declared.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_PREFIX = "dynprag_"
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # else: half precision
# What changes the softmax or its inputs inside a kernel; with any of these the plain softmax is wrong.
_UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")


@dataclass
class _Capture:
    """What one forward is asked to record; filled by the attention function."""

    layer: int
    queries: int
    weights: Tensor | None = None
    """(batch, heads, queries, keys) float32."""
    check: bool = False
    reproduces: bool = False


_active = threading.local()


class AttentionRecorder:
    """Records the last attention layer's weights of one model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._config = model.config
        self._layer = _last_attention_layer(model)
        self._supported: bool | None = None
        self._model = model

    @property
    def supported(self) -> bool:
        """Whether the recorded weights are this model's attention; found out by one short forward."""
        if self._supported is None:
            self._supported = self._layer is not None and self._reproduces_the_kernel()
            if not self._supported:
                logger.info("%s: the last layer's attention is not recognised", type(self._model).__name__)
        return self._supported

    @contextlib.contextmanager
    def recording(self, queries: int) -> Iterator[_Capture]:
        """Record the last `queries` queries of the forward made in this context (in this thread).

        The user's model is set back on exit.
        """
        assert self._layer is not None
        capture = _Capture(self._layer, queries)
        original = self._config._attn_implementation  # noqa: SLF001
        self._config._attn_implementation = _registered(original)  # noqa: SLF001
        _active.capture = capture
        try:
            yield capture
        finally:
            _active.capture = None
            self._config._attn_implementation = original  # noqa: SLF001

    def _reproduces_the_kernel(self) -> bool:
        ids = torch.arange(5, device=self._model.device)[None] % self._model.get_input_embeddings().num_embeddings
        try:
            with torch.inference_mode(), self.recording(queries=3) as capture:
                capture.check = True
                self._model(input_ids=ids, use_cache=False)
        except Exception as error:  # an unknown architecture may fail in any way; then: no signal
            logger.debug("trying out attention weights failed", exc_info=error)
            return False
        return capture.reproduces


def causal_attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, queries: int) -> Tensor:
    """Softmax attention weights of the last `queries` positions (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (batch, heads, q, dim).
        key: (batch, kv_heads, keys, dim); `heads` is a multiple of `kv_heads`.
        mask: None (causal, the last query sees every key), boolean (true: may attend) or additive,
            broadcastable to (batch, heads, q, keys).
        scaling: Factor of the scores.
        queries: How many of the last queries.

    Returns:
        (batch, heads, queries, keys) float32.
    """
    batch, heads, _, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    last = query[:, :, -queries:]
    n = last.shape[2]
    # Grouped heads share a key head: fold the group into the query axis instead of repeating the keys.
    grouped = last.reshape(batch, kv_heads, (heads // kv_heads) * n, dim)
    scores = torch.matmul(grouped, key.transpose(2, 3)).reshape(batch, heads, n, keys).float() * scaling
    if mask is None:
        if n > 1:
            position = torch.arange(keys, device=key.device)
            future = position[None, :] > position[keys - n :, None]  # (queries, keys)
            scores = scores.masked_fill(future, float("-inf"))
    else:
        rows = mask[:, :, -n:, :keys]
        boolean = rows.dtype == torch.bool
        scores = scores.masked_fill(~rows, float("-inf")) if boolean else scores + rows.float()
    return torch.softmax(scores, dim=-1)


def _registered(original: str | None) -> str:
    """The name under which `original`, with recording, is registered."""
    name = _PREFIX + (original or "eager")
    if name not in ALL_ATTENTION_FUNCTIONS._global_mapping:  # noqa: SLF001
        kernel = original or "eager"
        AttentionInterface.register(name, _recording_attention(kernel))
        # Without its own mask function an unknown name silently gets no mask at all.
        if kernel in ALL_MASK_ATTENTION_FUNCTIONS._global_mapping:  # noqa: SLF001
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return name


def _recording_attention(kernel: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if kernel == "eager":  # each modelling file has its own
            function = sys.modules[type(module).__module__].eager_attention_forward
        else:
            function = ALL_ATTENTION_FUNCTIONS[kernel]
        output, weights = function(module, query, key, value, attention_mask, **kwargs)
        capture: _Capture | None = getattr(_active, "capture", None)
        if capture is not None and getattr(module, "layer_idx", None) == capture.layer:
            _record(capture, module, query, key, value, attention_mask, output, kwargs)
        return output, weights

    return attention


def _record(
    capture: _Capture,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    output: Tensor,
    kwargs: dict[str, Any],
) -> None:
    scaling = kwargs.get("scaling")
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    weights = causal_attention_weights(query, key, mask, scaling, capture.queries)
    capture.weights = weights
    if capture.check:
        unsupported = any(kwargs.get(name) is not None for name in _UNSUPPORTED)
        capture.reproduces = not unsupported and getattr(module, "is_causal", True) and _matches(weights, value, output)


def _matches(weights: Tensor, value: Tensor, output: Tensor) -> bool:
    """Whether `weights` times the values is what the kernel gave: (batch, q, heads, dim)."""
    groups = weights.shape[1] // value.shape[1]
    expected = torch.matmul(weights, value.float().repeat_interleave(groups, dim=1)).transpose(1, 2)
    found = output[:, -weights.shape[2] :].float()
    if found.shape != expected.shape:
        return False
    tolerance = _TOLERANCE.get(value.dtype, 3e-2)
    return bool((found - expected).abs().max() <= tolerance * found.abs().max().clamp_min(1.0))


def _last_attention_layer(model: PreTrainedModel) -> int | None:
    """The largest `layer_idx` among modules that look like self-attention."""
    indices = [
        module.layer_idx
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and hasattr(module, "k_proj")
        and hasattr(module, "q_proj")
    ]
    return max(indices, default=None)
