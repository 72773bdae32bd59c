"""Keys and values of one sequence, in buffers that grow in place and can be truncated.

transformers' `DynamicLayer` concatenates, which copies every earlier key at every token. Here a layer writes into a
buffer with spare capacity. Sliding-window layers also keep all their keys and leave the window to the mask, so that
every sequence can be truncated to any length. Models with other kinds of state (state-space, convolution, compressed
keys) get transformers' own cache, which can only be continued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, get_layer_types_and_kwargs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

_PLAIN = {"full_attention", "sliding_attention", "chunked_attention"}
_GROWTH = 1.5
_SPARE = 128  # tokens


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, (batch, kv_heads, length, dim), in a buffer with spare capacity."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized: bool = False
        self.key_buffer: Tensor
        self.value_buffer: Tensor
        self.length = 0
        self._lent = 0
        """Number of leading tokens in the buffer that are shared with another layer and are never overwritten."""

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (batch, kv_heads, new, dim) and return views of all keys and values."""
        start, end = self.length, self.length + key_states.shape[2]
        if not self.is_initialized:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self.key_buffer = _buffer(key_states, end + _SPARE)
            self.value_buffer = _buffer(value_states, end + _SPARE)
        elif start < self._lent or end > self.key_buffer.shape[2]:
            capacity = end + _SPARE if self._lent else max(end + _SPARE, int(end * _GROWTH))
            self.key_buffer = _copied(self.key_buffer[:, :, :start], capacity)
            self.value_buffer = _copied(self.value_buffer[:, :, :start], capacity)
            self._lent = 0
        self.key_buffer[:, :, start:end] = key_states
        self.value_buffer[:, :, start:end] = value_states
        self.length = end
        self.keys, self.values = self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of tokens held."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length of the keys that the next forward pass will see, and their offset."""
        return self.length + query_length, 0

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens."""
        if self.is_initialized:
            self.length = length
            self.keys, self.values = self.key_buffer[:, :, :length], self.value_buffer[:, :, :length]

    def copy(self, length: int) -> GrowingLayer:
        """Return an independent layer with the first `length` tokens.

        It shares this layer's buffer and copies the tokens when it first appends. A sequence that continues a cached
        prefix is therefore copied once, with room for its whole prompt, layer by layer during the forward pass.
        """
        other = GrowingLayer()
        if self.is_initialized:
            other.dtype, other.device, other.is_initialized = self.dtype, self.device, True
            other.key_buffer, other.value_buffer = self.key_buffer[:, :, :length], self.value_buffer[:, :, :length]
            other.truncate(length)
            self._lent, other._lent = max(self._lent, length), length
        return other

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers, including spare capacity."""
        return self.key_buffer.nbytes + self.value_buffer.nbytes if self.is_initialized else 0


class SequenceCache:
    """The cache of one token sequence and the ids that it covers."""

    def __init__(self, cache: Cache, ids: list[int]) -> None:
        self.cache = cache
        """The cache of all tokens in `ids`."""
        self.ids = ids

    @classmethod
    def empty(cls, config: PretrainedConfig) -> SequenceCache:
        """Create an empty cache of the kind that suits the model."""
        decoder = config.get_text_config(decoder=True)
        types, _ = get_layer_types_and_kwargs(decoder)
        if set(types) <= _PLAIN:
            return cls(Cache(layers=[GrowingLayer() for _ in types]), [])
        return cls(DynamicCache(config=config), [])

    @property
    def layers(self) -> list[GrowingLayer] | None:
        """The layers if all of them are `GrowingLayer`s, otherwise None."""
        layers = self.cache.layers
        return layers if all(isinstance(layer, GrowingLayer) for layer in layers) else None

    @property
    def can_roll_back(self) -> bool:
        """Whether the sequence can be truncated or copied; if not, it can only be continued."""
        return self.layers is not None

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens. Requires `can_roll_back`."""
        assert self.layers is not None
        for layer in self.layers:
            layer.truncate(length)
        del self.ids[length:]

    def copy(self, length: int) -> SequenceCache:
        """Return an independent cache of the first `length` tokens. Requires `can_roll_back`."""
        assert self.layers is not None
        return SequenceCache(Cache(layers=[layer.copy(length) for layer in self.layers]), self.ids[:length])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        if self.layers is not None:
            return sum(layer.nbytes for layer in self.layers)
        tensors = (value for layer in self.cache.layers for value in vars(layer).values())
        return sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))


def _buffer(like: Tensor, capacity: int) -> Tensor:
    batch, heads, _, dim = like.shape
    return like.new_empty(batch, heads, capacity, dim)


def _copied(states: Tensor, capacity: int) -> Tensor:
    buffer = _buffer(states, capacity)
    buffer[:, :, : states.shape[2]] = states
    return buffer
