"""Importing libraries that set the level of their own logger. Imports nothing else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def level_kept(name: str) -> Iterator[None]:
    """Import a library that sets the level of its own logger, and restore the level afterwards.

    If the library was imported before, its level may be the user's choice and is left as it is.

    Args:
        name: The library, which is also its logger's name.
    """
    logger, imported = logging.getLogger(name), name in sys.modules
    before = logger.level
    try:
        yield
    finally:
        if not imported:
            logger.setLevel(before)
