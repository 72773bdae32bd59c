"""Temporary replacement of layers' `forward`, so that linear layers use other arithmetic without new modelling code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ForwardPatch = tuple[dict[str, Any], "Callable[[Tensor], Tensor]"]
"""A layer's attributes (`vars(layer)`) and its temporary `forward`."""


@contextlib.contextmanager
def patched_forwards(forwards: Iterable[ForwardPatch]) -> Iterator[None]:
    """Use these forwards in this context; skip layers whose forward another context has already replaced."""
    mine = [(attributes, forward) for attributes, forward in forwards if "forward" not in attributes]
    for attributes, forward in mine:
        attributes["forward"] = forward
    try:
        yield
    finally:
        for attributes, _ in mine:
            del attributes["forward"]
