"""Position of each adapted module in a model: the number of its decoder layer, and its name within that layer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamaindex_prag.adapters.layout import Layout
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ModulePosition:
    """Position of one target of a layout."""

    layer: int
    """Number of the decoder layer, from 0."""
    module: str
    """Name within the layer, such as `mlp.gate_proj`."""


def module_positions(layout: Layout) -> list[ModulePosition]:
    """Return the position of each target.

    Raises:
        ConfigurationError: If a target's name contains no layer number.
    """
    found = []
    for target in layout.targets:
        match = re.fullmatch(r"(?:.*\.)?(\d+)\.(.+)", target.name)
        if match is None:
            raise ConfigurationError(f"{target.name} is not in a numbered layer; a translator needs the layer's number")
        found.append(ModulePosition(int(match[1]), match[2]))
    return found
