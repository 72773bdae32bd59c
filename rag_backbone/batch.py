"""Decoding several generations together.

Each row's prompt is computed on its own, with its own known prefix; then the rows' keys and values are joined,
moved to the right end of one buffer, and every forward decodes one token for every row that is still running.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rag_backbone.kv_cache import join_left_padded, keep_rows
from rag_backbone.row import Row

if TYPE_CHECKING:
    from rag_backbone.engine import Engine


def decode_together(engine: Engine, rows: Sequence[Row]) -> None:
    """Advance all rows to their ends."""
    try:
        for row in rows:
            engine.advance(row)
        running = [row for row in rows if row.finish_reason is None]
        # Rows with different hidden-state hooks cannot share a forward, nor can states that do not stack.
        alike = len({row.request.signals.hidden_state for row in running}) <= 1
        stackable = all(row.sequence is not None and row.sequence.can_roll_back for row in running)
        if len(running) > 1 and alike and stackable:
            _decode_joined(engine, running)
        for row in running:
            while row.finish_reason is None:
                engine.advance(row)
    finally:
        for row in rows:
            row.cancel()
            engine.release(row)


def _decode_joined(engine: Engine, running: list[Row]) -> None:
    with torch.inference_mode():
        sequences = [row.sequence for row in running if row.sequence is not None]
        cache, padding = join_left_padded(sequences, spare=max(row.limit for row in running))
    while running:
        engine.advance_together(running, cache, padding)
        left = [i for i, row in enumerate(running) if row.finish_reason is None]
        if len(left) < len(running):
            running = [running[i] for i in left]
            padding = [padding[i] for i in left]
            if running:
                with torch.inference_mode():
                    cache = keep_rows(cache, left)
