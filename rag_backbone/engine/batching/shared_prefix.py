"""Sequences of one decode step that share a prefix: its keys and values are read once for all of them.

Sessions that share a prompt (instructions, worked examples) hold the same keys and values for it, as long as tokens and
adapters are the same, or the adapters act only after it. With many sequences, reading each one's keys and values
dominates the cost of a step. Here one copy of the prefix is read for the whole group, in one matrix product, followed
by each sequence's private suffix; one softmax covers both:

    scores of row i = [ q_i K_common^T | q_i K_i^T ] * scaling        (Vaswani et al. 2017, section 3.2.1)

The keys are not moved: every sequence keeps all of its own, so sequences can join and leave a group at every step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rag_backbone.engine.adapters import tokens_in_common
from rag_backbone.engine.prefix_cache import common_prefix

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 64
"""Minimum number of shared tokens for which a group is worthwhile."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A group of sequences that begin with the same tokens, computed by the same adapters."""

    rows: tuple[int, ...]
    """Positions of the sequences in the batch, at least two, in ascending order."""
    length: int
    """Number of tokens that the sequences share."""


def find_shared_prefixes(
    keys: Sequence[Hashable], ids: Sequence[list[int]], *, least: int = LEAST
) -> list[SharedPrefix]:
    """Group sequences that share at least `least` leading tokens.

    Each group is built around the first ungrouped sequence, from the sequences with which it saves the most reading.

    Args:
        keys: The adapter key of each sequence.
        ids: The ids in each sequence's cache.
        least: Shorter prefixes are not worth a group.
    """
    left = list(range(len(ids)))
    groups = []
    while len(left) > 1:
        first, *others = left
        limits = {row: tokens_in_common(keys[first], keys[row]) for row in others}
        limits = {row: min(limit, len(ids[first])) for row, limit in limits.items() if limit >= least}
        common = {row: common_prefix(ids[first], ids[row], limit=int(limit)) for row, limit in limits.items()}
        common = {row: length for row, length in common.items() if length >= least}
        # Grouping with the n sequences that share most saves n reads of the prefix that all of them share.
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
    """Compute the attention of each sequence's single query over its whole sequence, in float32.

    Args:
        query: (rows, heads, 1, dim).
        states: Keys and values of each sequence, (1, kv_heads, its tokens, dim); the first `length` are the same in
            all.
        length: Number of shared tokens.
        scaling: Factor of the scores.

    Returns:
        (rows, 1, heads, dim) in the query's type, and each sequence's weights: (1, heads, 1, its tokens) float32.
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


def attend_to_prefix(grouped: Tensor, keys: Tensor, values: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the shared part of an attention over a shared prefix and each sequence's private suffix.

    Args:
        grouped: (rows, kv_heads, group, dim) float32, each sequence's scaled query.
        keys: (kv_heads, known, dim), the shared keys.
        values: (kv_heads, known, dim), the shared values.
        own: (rows, kv_heads, group, n), scores of each private suffix, padded with minus infinity.

    Returns:
        The contribution of the shared values, (rows, kv_heads, group, dim), to which the caller adds that of the
            private suffixes; and the weights, (rows, kv_heads, group, known + n).
    """
    rows, kv_heads, group, dim = grouped.shape
    known = keys.shape[1]
    # (kv_heads, rows * group, dim): one product for all sequences.
    folded = grouped.transpose(0, 1).reshape(kv_heads, rows * group, dim)
    scores = torch.bmm(folded, keys.float().transpose(1, 2))
    scores = scores.view(kv_heads, rows, group, known).transpose(0, 1)
    weights = torch.softmax(torch.cat([scores, own], -1), -1)
    of_common = weights[..., :known].transpose(0, 1).reshape(kv_heads, rows * group, known)
    output = torch.bmm(of_common, values.float())
    return output.view(kv_heads, rows, group, -1).transpose(0, 1), weights
