"""The attention function that the engine puts in the place of a model's own, for one forward at a time.

It calls the original kernel in every layer, and adds three things. It can *record* the last attention layer's softmax
weights of the last few queries, without eager attention and without a second forward. It can take *rows* of several
sequences together, in decoding and in prefill, each reading its own keys and values, without padding them to one
length. And in half precision on a CPU it computes a lone query by products in float32, which is less rounding and a
fifth of the time (`attend_one`).

Which models this is right for is not a list of names: all of it is tried out once on a few tokens. The weights must
reproduce the kernel's own output, and rows the logits of each alone. Soft-capping, sinks, latent attention or a layer
that does not go through the registry fail; then the signal is not declared, and rows take turns.

This module alone relies on how transformers calls attention: the registries of attention and mask functions, the name
in `config._attn_implementation` that is looked up at every forward, `eager_attention_forward` in a modelling file, and
`layer_idx` of the attention modules.
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
    attend_once,
    attend_per_sequence,
    causal_attention_weights,
    scaling_of,
)
from rag_backbone.engine.batching.shared_prefix import SharedPrefix
from rag_backbone.engine.batching.shared_prompt import SharedPromptCache
from rag_backbone.engine.kv_cache import SequenceCache

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

TRIED_WITH = ("5.17", "5.23")
"""The first and the last version of transformers with which all of this was tried."""
_PREFIX = "dynprag_"
_HALF = (torch.bfloat16, torch.float16)
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # else: half precision
# What changes the softmax or its inputs inside a kernel; with any of these the plain softmax is wrong.
_UNSUPPORTED = ("softcap", "s_aux", "sinks", "position_bias")
_active = threading.local()


class AttentionPatch:
    """Exchanges one model's attention function for ours, for one forward at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._config = model.config
        self._layer = _last_attention_layer(model)
        self._model = model
        self._trying = False
        self._recognised = False
        self.tried_out = False
        self.supported = False
        """Whether the recorded weights are this model's attention."""
        self.decodes_rows = False
        """Whether rows decoded together get the logits of decoding alone."""
        self.prefills_rows = False
        """Whether rows prefilled together get the logits of prefilling alone."""

    @property
    def attends_itself(self) -> bool:
        """Whether a lone query is computed here: in half precision on a CPU, if that is the same.

        The caller owns the model meanwhile.
        """
        if self._model.device.type != "cpu" or self._model.dtype not in _HALF:
            return False
        self._recognise()
        return self.supported

    def try_out(self) -> None:
        """Find out, by a few short forwards, what this model supports. The caller owns the model meanwhile."""
        if self.tried_out or self._trying:  # the trials themselves ask what is supported
            return
        self._recognise()
        with self._trial():
            if self._layer is not None and _same_far_on(self._config):
                self.decodes_rows = _tried(lambda: self._rows_match(([1, 2, 3], [4, 5, 6, 7, 8]), ([9], [10])))
                self.prefills_rows = _tried(lambda: self._rows_match(([1, 2, 3], []), ([9, 10], [4, 5, 6, 7])))
        self.tried_out = True  # last: other threads look at it without the lock

    def _recognise(self) -> None:
        """Find out whether it is supported, all that a generation alone needs."""
        if self._recognised or self._trying:
            return
        with self._trial():
            if self._layer is not None:
                self.supported = _tried(self._reproduces_the_kernel)
        if not self.supported:
            logger.info("%s: the last layer's attention is not recognised", type(self._model).__name__)
        self._recognised = True

    @contextlib.contextmanager
    def _trial(self) -> Iterator[None]:
        self._trying = True
        try:
            yield
        finally:  # an interrupted trial is made again
            self._trying = False

    @contextlib.contextmanager
    def on(
        self,
        *,
        queries: int = 0,
        rows: PackedLayout | None = None,
        alike: Sequence[SharedPrefix] = (),
        shared: SharedPromptCache | None = None,
    ) -> Iterator[AttentionStep]:
        """Use our attention function for the forward made in this context (in this thread).

        The user's model is set back on exit.

        Args:
            queries: Record the weights of the last so many queries.
            rows: The rows of the forward, if they belong to several sequences; its arguments must be theirs.
            alike: Which of them begin alike; needs `supported`.
            shared: The cache of the forward, if its rows continue one prompt.
        """
        assert self._layer is not None
        step = AttentionStep(self._layer, queries, rows, alike, shared, self.attends_itself)
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
        """Whether new tokens after known ones of several sequences get the same logits together and alone."""
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
    """Whether what a few tokens show of rows together holds at any position too.

    It does not where positions are stretched by the longest one in a forward, which may be another row's, nor where
    attention is cut into chunks, of which rows know nothing.
    """
    decoder = config.get_text_config(decoder=True)
    if "chunked_attention" in get_layer_types_and_kwargs(decoder)[0]:
        return False
    rope = getattr(decoder, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # one for all layers, or by their type
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def _tried(trial: Callable[[], bool]) -> bool:
    try:
        return trial()
    except Exception as error:
        logger.debug("a trial failed", exc_info=error)
        return False


def _registered(original: str | None) -> str:
    """The name under which our function around `original` is registered."""
    name = _PREFIX + (original or "eager")
    if name not in ALL_ATTENTION_FUNCTIONS:
        kernel = original or "eager"
        AttentionInterface.register(name, _attention(kernel))
        # Without its own mask function an unknown name silently gets no mask at all.
        if kernel in ALL_MASK_ATTENTION_FUNCTIONS:
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
        step: AttentionStep | None = getattr(_active, "step", None)
        if step is None or module.training:
            return function(module, query, key, value, attention_mask, **kwargs)
        if step.rows is not None:
            return attend_per_sequence(function, kernel, step, module, query, kwargs), None
        if step.shared is not None:
            layer = step.shared.layers[module.layer_idx]
            return layer.attend(query, scaling_of(query, kwargs), kwargs.get("sliding_window")), None
        if step.products and attention_mask is None and query.shape[2] == 1:
            return attend_once(function, step, module, query, (key, value), kwargs), None
        output, weights = function(module, query, key, value, attention_mask, **kwargs)
        if step.queries and getattr(module, "layer_idx", None) == step.layer:
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
    """Whether `weights` times the values is what the kernel gave: (batch, q, heads, dim)."""
    groups = weights.shape[1] // value.shape[1]
    expected = torch.matmul(weights, value.float().repeat_interleave(groups, dim=1)).transpose(1, 2)
    found = output[:, -weights.shape[2] :].float()
    return found.shape == expected.shape and _close(expected, found, value.dtype)


def _close(expected: Tensor, found: Tensor, dtype: torch.dtype) -> bool:
    tolerance = _TOLERANCE.get(dtype, 3e-2)
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
