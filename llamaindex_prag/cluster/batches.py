"""Passages as batches for workers. Knows neither Ray nor models.

A batch consists of whole groups as one machine would train them (`parametrize.groups_of`), because the last bits of a
passage's adapter depend on the passages that it is trained with. Groups of short passages are joined until a batch has
about as many tokens as the largest group, so that all batches take about as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamaindex_prag.parametrize import groups_of
from llamaindex_prag.passages import Passage

_BATCHES_A_WORKER = 4
"""Minimum number of batches per worker, if there are as many groups, so that workers finish at about the same time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Passages that one worker trains in one call."""

    passages: tuple[Passage, ...]
    deaths: int = 0
    """Number of workers that died while they trained it."""

    def alone(self) -> list[Batch]:
        """Return a batch for each passage."""
        return [Batch((passage,)) for passage in self.passages]


def batches_of(passages: Sequence[Passage], size: int, workers: int, cost: Callable[[Passage], int]) -> list[Batch]:
    """Split passages into batches of about equal cost, the most expensive ones first.

    Args:
        passages: The passages.
        size: Number of passages that a worker trains together.
        workers: Number of workers.
        cost: A passage's cost, such as its number of tokens.
    """
    groups = [(sum(map(cost, group)), group) for group in groups_of(passages, size)]
    if not groups:
        return []
    fair = sum(spent for spent, _ in groups) / (_BATCHES_A_WORKER * workers)
    most = min(max(spent for spent, _ in groups), fair)
    batches: list[tuple[int, tuple[Passage, ...]]] = []
    for spent, group in groups:
        if batches and batches[-1][0] + spent <= most:
            before, joined = batches.pop()
            batches.append((before + spent, (*joined, *group)))
        else:
            batches.append((spent, tuple(group)))
    return [Batch(joined) for _, joined in sorted(batches, key=lambda batch: batch[0], reverse=True)]
