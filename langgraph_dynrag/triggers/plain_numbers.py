"""Check the numbers of a preset file."""

from __future__ import annotations

import math
from typing import Any

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError


def finite_numbers(values: Any, what: str, *, whole: bool = False) -> tuple[Any, ...]:
    """Return a list of numbers, or a single one, as a tuple.

    Args:
        values: The numbers.
        what: What they are, for the message.
        whole: Whether they have to be integers.

    Raises:
        ConfigurationError: If one is no finite number.
    """
    kinds = int if whole else int | float
    listed = values if isinstance(values, list | tuple) else [values]
    for v in listed:
        if not isinstance(v, kinds) or isinstance(v, bool) or not math.isfinite(v):
            raise ConfigurationError(f"{what}: {shown(v)}; a finite {'whole ' if whole else ''}number is needed")
    return tuple(listed) if whole else tuple(float(v) for v in listed)
