"""Rows of one decoding step whose sequences begin alike: what they have in common is read once for all of them.

Sessions that share a prompt (instructions, worked examples) hold the same keys and values for it, as far as tokens and
adapters are the same. With many rows, reading those of each is what a step comes to cost. Here one row's are read for
the whole group, as one matrix product, and each row's own behind them; one softmax goes over both:

    scores of row i = [ q_i K_common^T | q_i K_i^T ] * scaling        (Vaswani et al. 2017, section 3.2.1)

The keys stay where they are: every row keeps all of its own, so rows join and leave a group from step to step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rag_backbone.engine.prefix_cache import common_prefix

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 64
"""Common tokens from which a group pays."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Rows that begin with the same tokens, under the same adapters."""

    rows: tuple[int, ...]
    """Their places in the step, at least two, in rising order."""
    length: int
    """How many tokens they have in common."""


def find_shared_prefixes(
    keys: Sequence[Hashable], ids: Sequence[list[int]], *, least: int = LEAST
) -> list[SharedPrefix]:
    """Groups of rows that have at least `least` leading tokens in common.

    Each is made around the first row that is in none yet, of those rows with which it saves the most reading.

    Args:
        keys: Of each row's adapters; only rows with the same one are alike.
        ids: What each row's cache holds.
        least: Shorter beginnings are not worth a group.
    """
    left = list(range(len(ids)))
    groups = []
    while len(left) > 1:
        first, *others = left
        common = {row: common_prefix(ids[first], ids[row]) for row in others if keys[row] == keys[first]}
        common = {row: length for row, length in common.items() if length >= least}
        # With the n that have most in common, n readings of what all of them share are saved.
        longest = sorted(common, key=lambda row: -common[row])
        best = max(range(len(longest)), key=lambda n: (n + 1) * common[longest[n]], default=None)
        chosen = [] if best is None else longest[: best + 1]
        if chosen:
            groups.append(SharedPrefix((first, *sorted(chosen)), common[chosen[-1]]))
        left = [row for row in others if row not in chosen]
    return groups


def attend_with_shared_prefix(
    query: Tensor, states: Sequence[tuple[Tensor, Tensor]], length: int, scaling: float
) -> tuple[Tensor, list[Tensor]]:
    """Each row's lone query over its whole sequence, in float32.

    Args:
        query: (rows, heads, 1, dim).
        states: Of each row keys and values, (1, kv_heads, its tokens, dim); the first `length` of all are the same.
        length: Tokens in common.
        scaling: Factor of the scores.

    Returns:
        (rows, 1, heads, dim) in the query's type, and each row's weights: (1, heads, 1, its tokens) float32.
    """
    rows, heads, _, dim = query.shape
    keys = [key[0] for key, _ in states]
    kv_heads = keys[0].shape[0]
    grouped = query.float().reshape(rows, kv_heads, heads // kv_heads, dim) * scaling
    lengths = [key.shape[1] - length for key in keys]
    own = grouped.new_full((rows, kv_heads, heads // kv_heads, max(lengths)), float("-inf"))
    for i, key in enumerate(keys):
        own[i, :, :, : lengths[i]] = torch.bmm(grouped[i], key[:, length:].float().transpose(1, 2))
    output, weights = attend_to_prefix(grouped, keys[0][:, :length], states[0][1][0, :, :length], own)
    for i, (_, value) in enumerate(states):
        output[i] += torch.bmm(weights[i, :, :, length : length + lengths[i]], value[0, :, length:].float())
    of_rows = weights.view(rows, 1, heads, 1, -1)
    return (
        output.reshape(rows, 1, heads, -1).to(query.dtype),
        [of_rows[i, ..., : length + own_length] for i, own_length in enumerate(lengths)],
    )


def attend_to_prefix(
    grouped: Tensor, keys: Tensor, values: Tensor, own: Tensor, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The part of keys and values that all rows share, of an attention over those and each row's own.

    Args:
        grouped: (rows, kv_heads, group, dim) float32, each row's query, scaled.
        keys: (kv_heads, known, dim), with the values, of all rows.
        values: (kv_heads, known, dim).
        own: (rows, kv_heads, group, n) scores of each row's own keys; minus infinity where it has none.
        hidden: (rows, known), which of the keys a row does not see.

    Returns:
        What the shared values give, (rows, kv_heads, group, dim), to which those of the rows are to be added; and the
        weights, (rows, kv_heads, group, known + n).
    """
    rows, kv_heads, group, dim = grouped.shape
    known = keys.shape[1]
    # (kv_heads, rows * group, dim): one product for all rows.
    folded = grouped.transpose(0, 1).reshape(kv_heads, rows * group, dim)
    scores = torch.bmm(folded, keys.float().transpose(1, 2))
    scores = scores.view(kv_heads, rows, group, known).transpose(0, 1)
    if hidden is not None:
        scores = scores.masked_fill(hidden[:, None, None], float("-inf"))
    weights = torch.softmax(torch.cat([scores, own], -1), -1)
    of_common = weights[..., :known].transpose(0, 1).reshape(kv_heads, rows * group, known)
    output = torch.bmm(of_common, values.float())
    return output.view(kv_heads, rows, group, -1).transpose(0, 1), weights
