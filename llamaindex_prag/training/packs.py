"""Packs sequences that share a prefix into one row of a batch, so that the prefix is read once.

    [ common prefix ][ suffix of sequence 1 ][ suffix of sequence 2 ] ...

Each suffix attends to the prefix and to itself, at the positions it would have alone, so logits and gradients equal
those of separate rows. Questions about one passage start with the same instruction and, if the passage is in the
prompt, with the whole passage, so most of the tokens are shared. Knows nothing of losses and adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llamaindex_prag.training.examples import Example

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences packed into one row."""

    examples: tuple[Example, ...]
    prefix: int
    """Length of the shared prefix, less than every `counted_from`, so each counted token is predicted in a suffix."""

    @property
    def width(self) -> int:
        """Number of tokens in the row."""
        return self.prefix + sum(len(e.ids) - self.prefix for e in self.examples)

    @property
    def starts(self) -> list[int]:
        """Index in the row at which each sequence's suffix starts."""
        found, place = [], self.prefix
        for example in self.examples:
            found.append(place)
            place += len(example.ids) - self.prefix
        return found

    def with_one_more(self, example: Example) -> Pack:
        """Return this pack with one more sequence, shortening the prefix to what all sequences share."""
        first = self.examples[0].ids
        limit = min(self.prefix if len(self.examples) > 1 else self._alone, example.counted_from - 1)
        prefix = next((i for i in range(limit) if first[i] != example.ids[i]), limit)
        return Pack((*self.examples, example), prefix)

    @property
    def _alone(self) -> int:
        return self.examples[0].counted_from - 1


def packs_of(examples: Sequence[Example], limit: int) -> list[Pack]:
    """Pack sequences where that saves tokens, with at most `limit` tokens per row (unless it is a single sequence)."""
    found: list[Pack] = []
    for example in sorted(examples, key=lambda e: e.ids):
        alone = Pack((example,), 0)
        joined = found[-1].with_one_more(example) if found else alone
        if found and joined.width <= limit and joined.width < found[-1].width + alone.width:
            found[-1] = joined
        else:
            found.append(alone)
    return found


@dataclass(frozen=True, slots=True)
class Rows:
    """Packs padded to one width."""

    packs: tuple[Pack, ...]
    ids: Tensor
    """(rows, width) int64, padded on the right."""
    places: Tensor | None
    """(rows, width) int64, the position of each token in its sequence; None if that is its index in the row."""
    sees: Tensor | None
    """(rows, 1, width, width) bool attention mask; None for causal attention."""

    @property
    def predicting(self) -> Tensor:
        """(rows, width) bool, the tokens of each sequence from the one that predicts its first counted token."""
        found = torch.zeros_like(self.ids, dtype=torch.bool)
        for row, pack in zip(found, self.packs, strict=True):
            for start, example in zip(pack.starts, pack.examples, strict=True):
                first = start + example.counted_from - 1 - pack.prefix
                row[first : first + example.counted + 1] = True
        return found

    def part(self, values: Tensor) -> list[Tensor]:
        """Split (rows, width, ...) values into one (tokens, ...) tensor per sequence, in order."""
        found = []
        for row, pack in zip(values, self.packs, strict=True):
            for start, example in zip(pack.starts, pack.examples, strict=True):
                rest = row[start : start + len(example.ids) - pack.prefix]
                found.append(torch.cat([row[: pack.prefix], rest]))
        return found

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Join one (tokens, ...) tensor per sequence into (rows, width, ...), padded with zeros; inverse of `part`."""
        out = parts[0].new_zeros(*self.ids.shape, *parts[0].shape[1:])
        of = iter(parts)
        for row, pack in zip(out, self.packs, strict=True):
            for start, example in zip(pack.starts, pack.examples, strict=True):
                values = next(of)
                row[: pack.prefix] = values[: pack.prefix]
                row[start : start + len(example.ids) - pack.prefix] = values[pack.prefix :]
        return out


def segments_of(packs: Sequence[Pack]) -> Tensor:
    """Return (rows, width) int64: the number of each token's sequence in its row, from 1; 0 in the prefix, -1 after."""
    segments = torch.full((len(packs), max(pack.width for pack in packs)), -1)
    for row, pack in zip(segments, packs, strict=True):
        row[: pack.prefix] = 0
        for number, (start, example) in enumerate(zip(pack.starts, pack.examples, strict=True), 1):
            row[start : start + len(example.ids) - pack.prefix] = number
    return segments


def rows_of(packs: Sequence[Pack], pad: int, device: torch.device) -> Rows:
    """Build one batch with a row per pack, padded on the right with the token `pad`."""
    width = max(pack.width for pack in packs)
    ids = torch.full((len(packs), width), pad)
    places = torch.zeros(len(packs), width, dtype=torch.long)
    for i, pack in enumerate(packs):
        prefix = pack.prefix
        ids[i, :prefix] = torch.tensor(pack.examples[0].ids[:prefix], dtype=torch.long)
        places[i, :prefix] = torch.arange(prefix)
        for start, example in zip(pack.starts, pack.examples, strict=True):
            end = start + len(example.ids) - prefix
            ids[i, start:end] = torch.tensor(example.ids[prefix:])
            places[i, start:end] = torch.arange(prefix, len(example.ids))
    if all(len(pack.examples) == 1 for pack in packs):  # causal attention never sees padding on the right
        return Rows(tuple(packs), ids.to(device), None, None)
    segments = segments_of(packs)
    same = segments[:, :, None] == segments[:, None, :]
    sees = (same | (segments[:, None, :] == 0)).tril_()
    return Rows(tuple(packs), ids.to(device), places.to(device), sees[:, None].to(device))
