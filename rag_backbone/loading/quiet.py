"""Loading models without transformers' progress bars, restoring its settings afterwards.

Knows neither models nor files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Disable the progress bars of transformers, and restore the user's setting when the block ends."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_conversion() -> Iterator[None]:
    """Also disable the progress bar of the GGUF loader, which ignores the settings of transformers."""
    import transformers.modeling_gguf_pytorch_utils as loader

    module: Any = loader
    shown = getattr(module, "tqdm", None)
    with quiet_loading():
        if shown is None:  # this version shows progress in another way, or not at all
            yield
            return
        module.tqdm = functools.partial(shown, disable=True)
        try:
            yield
        finally:
            module.tqdm = shown
