"""The attention function that the engine substitutes for a model's own, for one forward pass at a time.

It calls the original kernel in every layer and adds three things. It can *record* the softmax weights of the last few
queries in the last attention layer, without eager attention and without a second forward pass. It can process *several
sequences* in one forward pass, in prefill and in decode, each attending to its own keys and values, without padding.
And in half precision on a CPU it computes a single query in float32, which rounds less and takes a fifth of the time
(`attend_one`).

There is no list of supported models. Each feature is tried out once on a few tokens: the recorded weights must
reproduce the kernel's output, and batched sequences must get the same logits as alone. Soft-capping, attention sinks,
latent attention, and layers that bypass the registry fail this test; then the `attention` signal is not offered, and
sequences take turns.

Only this module relies on how transformers calls attention: the registries of attention and mask functions, the name in
`config._attn_implementation` that is looked up in every forward pass, `eager_attention_forward` in a modelling file,
and `layer_idx` of the attention modules.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from rag_backbone.engine.batching.packed_layout import PackedLayout, keeps_logits
from rag_backbone.engine.batching.sequence_attention import (
    AttentionStep,
    attend_per_sequence,
    attend_sequence,
    causal_attention_weights,
    scaling_of,
)
from rag_backbone.engine.batching.shared_prefix import SharedPrefix
from rag_backbone.engine.kv_cache import SequenceCache

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

TRIED_WITH = ("5.17", "5.23")
"""The first and the last version of transformers that this module was tested with."""
_PREFIX = "dynprag_"
_HALF = (torch.bfloat16, torch.float16)
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # other types are half precision
# Kernel arguments that change the softmax or its inputs; the plain softmax is wrong with any of them.
_UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")
_active = threading.local()


class AttentionPatch:
    """Replaces one model's attention function with ours, for one forward pass at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._config = model.config
        self._layer = _last_attention_layer(model)
        self._model = model
        self._trying = False
        self.tried_out = False
        self.supported = False
        """Whether the recorded weights match this model's attention."""
        self.decodes_rows = False
        """Whether sequences decoded in one batch get the same logits as when decoded alone."""
        self.prefills_rows = False
        """Whether prompts prefilled in one batch get the same logits as when prefilled alone."""

    @property
    def attends_itself(self) -> bool:
        """Whether single queries are computed here: in half precision on a CPU, if the result is the same.

        The caller must have exclusive use of the model.
        """
        if self._model.device.type != "cpu" or self._model.dtype not in _HALF:
            return False
        self.try_out()
        return self.supported

    def try_out(self) -> None:
        """Find out with a few short forward passes what this model supports.

        The caller must have exclusive use of the model.
        """
        if self.tried_out or self._trying:  # the trials themselves query what is supported
            return
        self._trying = True
        try:
            if self._layer is not None:
                self.supported = _tried(self._reproduces_the_kernel)
                if _same_far_on(self._config):
                    self.decodes_rows = _tried(lambda: self._rows_match(([1, 2, 3], [4, 5, 6, 7, 8]), ([9], [10])))
                    self.prefills_rows = _tried(lambda: self._rows_match(([1, 2, 3], []), ([9, 10], [4, 5, 6, 7])))
        finally:  # an interrupted trial is repeated later
            self._trying = False
        if not self.supported:
            logger.info("%s: the attention of the last layer is not recognised", type(self._model).__name__)
        self.tried_out = True  # set last: other threads read it without a lock

    @contextlib.contextmanager
    def on(
        self,
        *,
        queries: int = 0,
        rows: PackedLayout | None = None,
        alike: Sequence[SharedPrefix] = (),
    ) -> Iterator[AttentionStep]:
        """Use our attention function for the forward pass made in this context, in this thread.

        The model's own attention function is restored on exit.

        Args:
            queries: How many of the last queries to record the weights of.
            rows: The layout of the forward pass if it covers several sequences; pass its `arguments` to the model.
            alike: Groups of sequences that share a prefix; requires `supported`.
        """
        assert self._layer is not None
        step = AttentionStep(self._layer, queries, rows, alike, self.attends_itself)
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

    def _rows_match(self, known: tuple[list[int], ...], new: tuple[list[int], ...]) -> bool:
        """Return whether new tokens of several sequences get the same logits in one batch as alone."""
        model, device = self._model, self._model.device
        vocabulary = model.get_input_embeddings().num_embeddings
        known, new = (tuple([i % vocabulary for i in ids] for ids in part) for part in (known, new))
        sequences = [SequenceCache.empty(model.config) for _ in known]
        if not all(sequence.can_roll_back for sequence in sequences):
            return False
        rows = PackedLayout(sequences, new)
        alone = []
        with torch.inference_mode():
            for sequence, before, after in zip(sequences, known, new, strict=True):
                if before:
                    ids = torch.tensor([before], device=device)
                    model(input_ids=ids, past_key_values=sequence.cache, use_cache=True)
                sequence.ids = before
                once, ids = sequence.copy(len(before)), torch.tensor([after], device=device)
                with self.on():
                    logits = model(input_ids=ids, past_key_values=once.cache, use_cache=True).logits
                alone.append(logits[0, -1])
            with self.on(rows=rows):
                together = model(**rows.arguments(device, logits_kept=keeps_logits(model))).logits
        expected, found = torch.stack(alone).float(), rows.last(together).float()
        tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
        return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1.0))


def _same_far_on(config: PretrainedConfig) -> bool:
    """Return whether what a few tokens show about batched sequences also holds at any position.

    It does not hold if positions are scaled by the longest one in the forward pass, which may belong to another
    sequence, nor if attention is chunked, which the batched attention here does not implement.
    """
    decoder = config.get_text_config(decoder=True)
    if "chunked_attention" in get_layer_types_and_kwargs(decoder)[0]:
        return False
    rope = getattr(decoder, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # shared, or one per layer type
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def _tried(trial: Callable[[], bool]) -> bool:
    try:
        return trial()
    except Exception as error:
        logger.debug("trying out the model's attention failed", exc_info=error)
        return False


def _registered(original: str | None) -> str:
    """Return the name under which our function around `original` is registered."""
    name = _PREFIX + (original or "eager")
    if name not in ALL_ATTENTION_FUNCTIONS:
        kernel = original or "eager"
        AttentionInterface.register(name, _attention(kernel))
        # A name without a registered mask function silently gets no mask at all.
        if kernel in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return name


def _attention(kernel: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if kernel == "eager":  # each modelling file defines its own
            function = sys.modules[type(module).__module__].eager_attention_forward
        else:
            function = ALL_ATTENTION_FUNCTIONS[kernel]
        step: AttentionStep | None = getattr(_active, "step", None)
        if step is None or module.training:
            return function(module, query, key, value, attention_mask, **kwargs)
        if step.rows is not None:
            return attend_per_sequence(function, kernel, step, module, query, kwargs), None
        if step.products and attention_mask is None and query.shape[2] == 1:
            return attend_sequence(function, kernel, step, module, query, (key, value), kwargs), None
        output, weights = function(module, query, key, value, attention_mask, **kwargs)
        if step.records(module):
            _record(step, module, query, key, value, attention_mask, output, kwargs)
        return output, weights

    return attention


def _record(
    step: AttentionStep,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    output: Tensor,
    kwargs: dict[str, Any],
) -> None:
    weights = causal_attention_weights(query, key, mask, scaling_of(query, kwargs), step.queries)
    step.weights = [weights]
    if step.check:
        unsupported = any(kwargs.get(name) is not None for name in _UNSUPPORTED)
        step.reproduces = not unsupported and getattr(module, "is_causal", True) and _matches(weights, value, output)


def _matches(weights: Tensor, value: Tensor, output: Tensor) -> bool:
    """Return whether `weights` times the values equals the kernel's output: (batch, q, heads, dim)."""
    groups = weights.shape[1] // value.shape[1]
    expected = torch.matmul(weights, value.float().repeat_interleave(groups, dim=1)).transpose(1, 2)
    found = output[:, -weights.shape[2] :].float()
    return found.shape == expected.shape and _close(expected, found, value.dtype)


def _close(expected: Tensor, found: Tensor, dtype: torch.dtype) -> bool:
    tolerance = _TOLERANCE.get(dtype, 3e-2)
    return bool((found - expected).abs().max() <= tolerance * found.abs().max().clamp_min(1.0))


def _last_attention_layer(model: PreTrainedModel) -> int | None:
    """Return the largest `layer_idx` among modules that look like self-attention."""
    indices = [
        module.layer_idx
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and hasattr(module, "k_proj")
        and hasattr(module, "q_proj")
    ]
    return max(indices, default=None)
