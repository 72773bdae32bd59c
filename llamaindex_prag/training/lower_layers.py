"""Runs the decoder layers below the first adapted one once per sequence instead of once per epoch.

An adapter of the layers k, k+1, ... never changes the output of layer k - 1, whatever the document and the training
step. Those hidden states are cached, and the layers below k are skipped during training. Knows nothing of losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.patched_forwards import patched_forwards
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.packs import Pack, Rows, rows_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class LowerLayers:
    """Computes the hidden states below the first adapted layer, and feeds them to the decoder later.

    Args:
        model: The base model; it is not changed.
        layout: Layout of the adapters.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout) -> None:
        self._decoder = model.get_decoder()
        names = {id(module): name for name, module in model.named_modules()}
        prefixes = [names[id(layer)] + "." for layer in self._decoder.layers]
        touched = [i for i, p in enumerate(prefixes) if any(t.name.startswith(p) for t in layout.targets)]
        self.count = touched[0]
        """Number of layers that can be skipped, counted from the first; 0 if the decoder cannot skip any."""
        if self.count and not self._tried(model):
            self.count = 0

    @torch.no_grad()
    def _tried(self, model: PreTrainedModel) -> bool:
        """Return whether the decoder can resume from given hidden states; not if layers exchange anything else."""
        rows = rows_of([Pack((Example((1, 2, 3, 4), 1),), 0)], 0, model.device)
        expected = self._decoder(input_ids=rows.ids, use_cache=False).last_hidden_state
        try:
            with self.given(self.states(rows)):
                found = self._decoder(input_ids=rows.ids, use_cache=False).last_hidden_state
        except (AttributeError, IndexError, TypeError):
            return False
        return bool(torch.allclose(found, expected, atol=1e-3, rtol=1e-3))

    @torch.no_grad()
    def states(self, rows: Rows) -> Tensor:
        """Return the (rows, width, hidden) output of the last of these layers."""
        found: list[Tensor] = []

        def stop(_: Any, given: tuple[Any, ...]) -> None:
            found.append(given[0])
            raise _EnoughError

        handle = self._decoder.layers[self.count].register_forward_pre_hook(stop)
        try:
            with contextlib.suppress(_EnoughError):
                self._decoder(rows.ids, attention_mask=rows.sees, position_ids=rows.places, use_cache=False)
        finally:
            handle.remove()
        return found[0]

    @contextlib.contextmanager
    def given(self, states: Tensor | None) -> Iterator[None]:
        """Make the decoder resume from these states within this context; None lets it compute every layer."""
        if states is None:
            yield
            return

        def passed(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            return hidden

        def known(*_: Any, **__: Any) -> Tensor:
            return states

        lower = self._decoder.layers[: self.count]
        forwards: list[Callable[..., Tensor]] = [passed] * (self.count - 1) + [known]
        with patched_forwards((vars(layer), forward) for layer, forward in zip(lower, forwards, strict=True)):
            yield


class _EnoughError(Exception):
    """Raised to stop a forward pass once the states below the first adapted layer are known."""
