"""Find the linear layers of a model that an adapter changes."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.lora_config import FFN_TARGETS, layer_numbers
from rag_backbone.errors import ConfigurationError


def layout_of(
    model: PreTrainedModel,
    *,
    rank: int,
    targets: tuple[str, ...] = FFN_TARGETS,
    layers: tuple[int, ...] | float | None = None,
) -> Layout:
    """Return the layout of an adapter for a model.

    Args:
        model: A decoder-only model with named layers.
        rank: Rank of each update.
        targets: Last name components of the linear layers to adapt.
        layers: Decoder layer numbers, negative ones counted from the end; or the fraction of layers, counted from the
            last (0.5: the upper half, at least one layer). None: all.

    Raises:
        ConfigurationError: If no such layer exists.
    """
    decoder = model.get_decoder().layers
    count = len(decoder)
    wanted = set(range(count)) if layers is None else set(layer_numbers(layers, count))
    prefixes = {id(layer): number for number, layer in enumerate(decoder)}
    roots = {name + ".": prefixes[id(module)] for name, module in model.named_modules() if id(module) in prefixes}
    found = []
    for name, module in model.named_modules():
        number = next((n for root, n in roots.items() if name.startswith(root)), None)
        if number in wanted and isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in targets:
            found.append(Target(name, module.in_features, module.out_features))
    if not found:
        for name, module in model.named_modules():
            if name.rsplit(".", 1)[-1] in targets:
                raise ConfigurationError(
                    f"{name} of {type(model).__name__} is a {type(module).__name__}, not an nn.Linear: a quantiser or "
                    "another wrapper has replaced it. Adapters need the plain layers; load the model without the "
                    "wrapper, such as in bfloat16."
                )
        linears = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ConfigurationError(
            f"{type(model).__name__} has no linear layers named {', '.join(targets)}; it has {', '.join(linears)}. "
            "Name those to adapt in Recipe(targets=...)."
        )
    return Layout(tuple(found), rank)


def target_layers(model: PreTrainedModel, layout: Layout) -> list[nn.Linear]:
    """Return the layers of the model that a layout names.

    Raises:
        ConfigurationError: If the layout belongs to another model, or something else has replaced a layer's `forward`.
    """
    layers = []
    for target in layout.targets:
        try:
            layer = model.get_submodule(target.name)
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear):
            raise ConfigurationError(
                f"{type(model).__name__} has no linear layer {target.name}; the adapters belong to another model"
            )
        if (layer.in_features, layer.out_features) != (target.inputs, target.outputs):
            raise ConfigurationError(
                f"{target.name} has {layer.in_features} inputs and {layer.out_features} outputs; "
                f"the adapters were trained for {target.inputs} and {target.outputs}"
            )
        if "forward" in vars(layer):
            raise ConfigurationError(
                f"something else has replaced the forward of {target.name} (a device map's hook, a quantiser); "
                "adapters need the plain layer. Load the model onto one device, without such a wrapper."
            )
        layers.append(layer)
    return layers
