"""Hidden states of a named layer, recorded during a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from rag_backbone.errors import SignalUnavailableError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def module_of(model: PreTrainedModel, name: str | int) -> nn.Module:
    """Return the module whose output is the hidden state `name`.

    Raises:
        SignalUnavailableError: If the model has no such module.
    """
    if isinstance(name, str):
        try:
            return model.get_submodule(name)
        except AttributeError as error:
            raise SignalUnavailableError(
                f"the model has no module {name!r}; use a name from model.named_modules(), "
                "such as 'model.layers.3', or a layer's index"
            ) from error
    layers = model.get_decoder().layers
    if not -len(layers) <= name < len(layers):
        raise SignalUnavailableError(f"hidden_state={name}: the model has layers 0 to {len(layers) - 1}")
    return layers[name]


def hidden_state_name(model: PreTrainedModel, layer: int, part: Literal["layer", "mlp"]) -> str | int:
    """Return the name by which `module_of` finds a layer, or the feed-forward part of it.

    Raises:
        SignalUnavailableError: If the layer has no part `mlp`.
    """
    if part == "layer":
        return layer
    block = module_of(model, layer)
    found = getattr(block, "mlp", None)
    name = next((name for name, module in model.named_modules() if module is found and found is not None), None)
    if name is None:
        raise SignalUnavailableError(
            f"layer {layer} of {type(model).__name__} has no part 'mlp'; use the state of the whole layer"
        )
    return name


@contextlib.contextmanager
def last_hidden(module: nn.Module, keep: int = 1) -> Iterator[list[Tensor]]:
    """Record the module's output at the last `keep` positions: a list that receives (rows, keep, width) per call."""
    found: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        found.append(states[:, -keep:].clone())

    handle = module.register_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()
