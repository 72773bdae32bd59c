"""The attention function that the engine puts in the place of a model's own, for one forward at a time.

It calls the original kernel in every layer, and adds three things. It can *record* the last attention layer's softmax
weights of the last few queries, without eager attention and without a second forward. It can decode *rows* of several
sequences together, each reading its own keys and values, without padding them to one length. And where a CPU's kernel
for half precision is slow for one query, because it rearranges all keys at every call, two products in float32 take
its place: the same formula, with less rounding, in a fifth of the time.

Which models this is right for is not a list of names: both are tried out once on a few tokens. The weights must
reproduce the kernel's own output, and rows the logits of decoding alone. Soft-capping, sinks, latent attention or a
layer that does not go through the registry fail; then the signal is not declared, and rows are decoded in turn.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from rag_backbone.kv_cache import SequenceCache, rows_cache
from rag_backbone.shared_prompt import SharedPromptCache

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_PREFIX = "dynprag_"
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # else: half precision
# What changes the softmax or its inputs inside a kernel; with any of these the plain softmax is wrong.
_UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")


@dataclass
class Step:
    """What one forward is asked for beyond its logits; filled by the attention function."""

    layer: int
    """The last attention layer."""
    queries: int = 0
    """How many of the last queries to record."""
    rows: Sequence[SequenceCache] | None = None
    """The sequences whose next tokens are decoded together."""
    shared: SharedPromptCache | None = None
    """The cache of several continuations of one prompt that are decoded together."""
    single: bool = False
    """Whether a lone query may be computed by `attend_one`."""
    weights: list[Tensor] = field(default_factory=list)
    """One tensor (1 or batch, heads, queries, keys) float32; with `rows` one a row."""
    check: bool = False
    reproduces: bool = False


_active = threading.local()


class AttentionSwitch:
    """Exchanges one model's attention function for ours, for one forward at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._config = model.config
        self._layer = _last_attention_layer(model)
        self._model = model
        self._trying = False
        self.tried_out = False
        self.supported = False
        """Whether the recorded weights are this model's attention."""
        self.decodes_rows = False
        """Whether rows decoded together get the logits of decoding alone."""

    @property
    def attends_alone(self) -> bool:
        """Whether a lone query is better computed by `attend_one`: in half precision on a CPU, if that is the same.

        The caller owns the model meanwhile.
        """
        if self._model.dtype not in (torch.bfloat16, torch.float16) or self._model.device.type != "cpu":
            return False
        self.try_out()
        return self.supported

    def try_out(self) -> None:
        """Find out, by a few short forwards, what this model supports. The caller owns the model meanwhile."""
        if self.tried_out or self._trying:  # the trials themselves ask what is supported
            return
        self._trying = True
        if self._layer is not None:
            self.supported = _tried(self._reproduces_the_kernel)
            self.decodes_rows = _tried(self._rows_match)
        if not self.supported:
            logger.info("%s: the last layer's attention is not recognised", type(self._model).__name__)
        self.tried_out = True  # last: other threads look at it without the lock

    @contextlib.contextmanager
    def on(
        self,
        *,
        queries: int = 0,
        rows: Sequence[SequenceCache] | None = None,
        shared: SharedPromptCache | None = None,
    ) -> Iterator[Step]:
        """Use our attention function for the forward made in this context (in this thread).

        The user's model is set back on exit.

        Args:
            queries: Record the weights of the last so many queries.
            rows: The sequences that a step of several rows belongs to; its cache must be their `rows_cache`.
            shared: The cache of the forward, if its rows continue one prompt.
        """
        assert self._layer is not None
        step = Step(self._layer, queries, rows, shared, self.attends_alone)
        original = self._config._attn_implementation  # noqa: SLF001
        self._config._attn_implementation = _registered(original)  # noqa: SLF001
        _active.step = step
        try:
            yield step
        finally:
            _active.step = None
            self._config._attn_implementation = original  # noqa: SLF001

    def _reproduces_the_kernel(self) -> bool:
        ids = torch.arange(5, device=self._model.device)[None] % self._model.get_input_embeddings().num_embeddings
        with torch.inference_mode(), self.on(queries=3) as step:
            step.check = True
            self._model(input_ids=ids, use_cache=False)
        return step.reproduces

    def _rows_match(self) -> bool:
        """Decode one token for sequences of two lengths, together and alone."""
        model, prompts = self._model, ([1, 2, 3], [4, 5, 6, 7, 8])
        vocabulary = model.get_input_embeddings().num_embeddings
        tensors = [torch.tensor([p], device=model.device) % vocabulary for p in prompts]
        last = torch.tensor([[9], [10]], device=model.device) % vocabulary
        with torch.inference_mode():
            sequences = [SequenceCache.empty(model.config) for _ in prompts]
            if not all(s.can_roll_back for s in sequences):
                return False
            alone = []
            for sequence, ids, token in zip(sequences, tensors, last, strict=True):
                model(input_ids=ids, past_key_values=sequence.cache, use_cache=True)
                sequence.ids = ids[0].tolist()
                once = sequence.copy(len(sequence.ids))
                with self.on():
                    logits = model(input_ids=token[None], past_key_values=once.cache, use_cache=True).logits
                alone.append(logits[0, -1])
            positions = torch.tensor([[len(s.ids)] for s in sequences], device=model.device)
            with self.on(rows=sequences):
                cache = rows_cache(sequences)
                together = model(input_ids=last, past_key_values=cache, position_ids=positions, use_cache=True).logits
        expected, found = torch.stack(alone).float(), together[:, -1].float()
        tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
        return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1.0))


def _tried(trial: Callable[[], bool]) -> bool:
    try:
        return trial()
    except Exception as error:
        logger.debug("%s failed", trial.__name__, exc_info=error)
        return False


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
    # In float32, also for half precision: a CPU's half-precision product prepares itself anew for every length of key.
    scores = torch.matmul(grouped.float(), key.float().transpose(2, 3)).reshape(batch, heads, n, keys) * scaling
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
    """The name under which our function around `original` is registered."""
    name = _PREFIX + (original or "eager")
    if name not in ALL_ATTENTION_FUNCTIONS._global_mapping:  # noqa: SLF001
        kernel = original or "eager"
        AttentionInterface.register(name, _attention(kernel))
        # Without its own mask function an unknown name silently gets no mask at all.
        if kernel in ALL_MASK_ATTENTION_FUNCTIONS._global_mapping:  # noqa: SLF001
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return name


def _attention(kernel: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if kernel == "eager":  # each modelling file has its own
            function = sys.modules[type(module).__module__].eager_attention_forward
        else:
            function = ALL_ATTENTION_FUNCTIONS[kernel]
        step: Step | None = getattr(_active, "step", None)
        if step is None or module.training:
            return function(module, query, key, value, attention_mask, **kwargs)
        if step.rows is not None:
            return _attend_by_row(function, step, module, query, kwargs), None
        if step.shared is not None:
            layer = step.shared.layers[module.layer_idx]
            return layer.attend(query, _scaling(query, kwargs), kwargs.get("sliding_window")), None
        if step.single and attention_mask is None and query.shape[2] == 1:
            return _attend_once(function, step, module, query, (key, value), kwargs), None
        output, weights = function(module, query, key, value, attention_mask, **kwargs)
        if step.queries and getattr(module, "layer_idx", None) == step.layer:
            _record(step, module, query, key, value, attention_mask, output, kwargs)
        return output, weights

    return attention


def _attend_by_row(
    function: Callable[..., tuple[Tensor, Tensor | None]],
    step: Step,
    module: nn.Module,
    query: Tensor,
    kwargs: dict[str, Any],
) -> Tensor:
    """(rows, 1, heads, dim): each row's single query over its own sequence."""
    assert step.rows is not None
    outputs = []
    for i, sequence in enumerate(step.rows):
        layer = sequence.cache.layers[module.layer_idx]
        states = (layer.keys, layer.values)
        outputs.append(_attend_once(function, step, module, query[i : i + 1], states, kwargs))
    return torch.cat(outputs)


def _attend_once(
    function: Callable[..., tuple[Tensor, Tensor | None]],
    step: Step,
    module: nn.Module,
    query: Tensor,
    states: tuple[Tensor, Tensor],
    kwargs: dict[str, Any],
) -> Tensor:
    """(1, 1, heads, dim): a lone query over all keys and values of its sequence, recorded if that is wanted."""
    key, value = states
    length = key.shape[2]
    if window := kwargs.get("sliding_window"):
        key, value = key[:, :, -window:], value[:, :, -window:]
    recorded = step.queries and module.layer_idx == step.layer
    weights = None
    if step.single:
        output, weights = attend_one(query, key, value, _scaling(query, kwargs))
    else:
        output = function(module, query, key, value, None, **kwargs)[0]
        if recorded:
            weights = causal_attention_weights(query, key, None, _scaling(query, kwargs), 1)
    if recorded and weights is not None:
        if (hidden := length - weights.shape[-1]) > 0:  # beyond the window
            weights = torch.nn.functional.pad(weights, (hidden, 0))
        step.weights.append(weights)
    return output


def attend_one(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """One query over all keys, in float32 (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (1, heads, 1, dim).
        key: (1, kv_heads, keys, dim); `heads` is a multiple of `kv_heads`.
        value: (1, kv_heads, keys, dim).
        scaling: Factor of the scores.

    Returns:
        (1, 1, heads, dim) in the query's type, and the weights: (1, heads, 1, keys) float32.
    """
    _, heads, _, dim = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(kv_heads, heads // kv_heads, dim).float()
    scores = torch.bmm(grouped, key[0].float().transpose(1, 2)) * scaling
    weights = torch.softmax(scores, -1)  # (kv_heads, group, keys)
    output = torch.bmm(weights, value[0].float())
    return output.to(query.dtype).reshape(1, 1, heads, -1), weights.reshape(1, heads, 1, -1)


def _record(
    step: Step,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    output: Tensor,
    kwargs: dict[str, Any],
) -> None:
    weights = causal_attention_weights(query, key, mask, _scaling(query, kwargs), step.queries)
    step.weights = [weights]
    if step.check:
        unsupported = any(kwargs.get(name) is not None for name in _UNSUPPORTED)
        step.reproduces = not unsupported and getattr(module, "is_causal", True) and _matches(weights, value, output)


def _scaling(query: Tensor, kwargs: dict[str, Any]) -> float:
    scaling = kwargs.get("scaling")
    return query.shape[-1] ** -0.5 if scaling is None else float(scaling)


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
