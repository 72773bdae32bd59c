"""Where in a model each adapted layer stands: the number of its decoder layer, and which module of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llamaindex_prag.adapters.layout import Layout
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ModulePosition:
    """Of one target of a layout."""

    layer: int
    module: str
    """Such as `mlp.gate_proj`."""


def module_positions(layout: Layout) -> list[ModulePosition]:
    """The place of each target.

    Raises:
        ConfigurationError: If a target's name holds no layer's number.
    """
    found = []
    for target in layout.targets:
        match = re.fullmatch(r"(?:.*\.)?(\d+)\.(.+)", target.name)
        if match is None:
            raise ConfigurationError(f"{target.name} is no part of a numbered layer; a translator needs its number")
        found.append(ModulePosition(int(match[1]), match[2]))
    return found
