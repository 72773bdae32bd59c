"""The smallest adapters there are, with a backend that applies them to each row of a batch."""

import contextlib

import torch


class Shift:
    """A stand-in for adapters: shifts the first layer's output in its own rows."""

    def __init__(self, value: float) -> None:
        self.cache_key = ("shift", value)
        self.value = value


class ShiftBackend:
    def __init__(self, model) -> None:
        self._layer = model.get_decoder().layers[0].mlp

    @contextlib.contextmanager
    def activate(self, rows):
        values = torch.tensor([0.0 if r is None else r.value for r in rows]).view(-1, 1, 1)
        shift = values * torch.linspace(-4, 4, 32)
        handle = self._layer.register_forward_hook(lambda _m, _a, out: out + shift)
        try:
            yield
        finally:
            handle.remove()
