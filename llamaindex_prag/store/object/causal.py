"""Sets of facts that hosts change without locks, and that merge to the same state in any order.

Each fact is added under a *dot*, (writer, number), that no other fact ever has. A state is the facts that it holds and
the dots that it has seen; a dot that was seen and whose fact is not held was removed. Joining two states keeps a fact
unless one of them has seen its dot and does not hold it:

    facts = (F1 & F2) | (F1 - S2) | (F2 - S1)        seen = S1 | S2

This is the optimised observed-remove set of Almeida, Shoker and Baquero, "Delta State Replicated Data Types" (2018),
section 7: a removal names exactly the additions that its writer had seen, so no clock decides anything. Joins are
associative, commutative and idempotent: records can be read in any order, twice, or merged into one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Dot = tuple[str, int]
"""A writer's unique id, and a number that it uses once."""

Fact = TypeVar("Fact")

_LARGEST = 1 << 62


class Dots:
    """A set of dots, kept as ranges of numbers for each writer."""

    def __init__(self, ranges: Mapping[str, Iterable[Iterable[int]]] | None = None) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = {}
        for writer, found in (ranges or {}).items():
            for first, last in found:
                self.add((writer, first), last)

    @classmethod
    def of(cls, dots: Iterable[Dot]) -> Dots:
        """Return the set of some dots."""
        found = cls()
        for dot in dots:
            found.add(dot)
        return found

    def add(self, dot: Dot, last: int | None = None) -> None:
        """Add a dot, or all of its writer up to the number `last`, inclusive."""
        writer, first = dot
        last = first if last is None else last
        ranges = self._ranges.setdefault(writer, [])
        start = bisect_right(ranges, (first, -1))
        if start and ranges[start - 1][1] >= first - 1:
            start -= 1
        end = start
        while end < len(ranges) and ranges[end][0] <= last + 1:
            first, last = min(first, ranges[end][0]), max(last, ranges[end][1])
            end += 1
        ranges[start:end] = [(first, last)]

    def update(self, other: Dots) -> None:
        """Add all dots of another set."""
        for writer, ranges in other._ranges.items():
            for first, last in ranges:
                self.add((writer, first), last)

    def __contains__(self, dot: Dot) -> bool:
        writer, number = dot
        ranges = self._ranges.get(writer, ())
        at = bisect_right(ranges, (number, _LARGEST)) - 1
        return at >= 0 and ranges[at][0] <= number <= ranges[at][1]

    def __iter__(self) -> Iterator[Dot]:
        for writer, ranges in self._ranges.items():
            for first, last in ranges:
                yield from ((writer, number) for number in range(first, last + 1))

    def __len__(self) -> int:
        return sum(last - first + 1 for ranges in self._ranges.values() for first, last in ranges)

    def __le__(self, other: Dots) -> bool:
        """Return whether another set has all of these dots. Ranges are maximal: each lies within one of the other's."""
        return all(
            (writer, first) in other and other.last_of_range((writer, first)) >= last
            for writer, ranges in self._ranges.items()
            for first, last in ranges
        )

    def last_of_range(self, dot: Dot) -> int:
        """Return the last number of the range that a dot of the set is in."""
        writer, number = dot
        ranges = self._ranges[writer]
        return ranges[bisect_right(ranges, (number, _LARGEST)) - 1][1]

    def to_dict(self) -> dict[str, list[list[int]]]:
        """Return the ranges as plain data, sorted by writer."""
        return {writer: [list(pair) for pair in self._ranges[writer]] for writer in sorted(self._ranges)}

    def __repr__(self) -> str:
        return f"Dots({self.to_dict()!r})"


@dataclass(slots=True)
class Delta(Generic[Fact]):
    """What a record says: the facts that it adds, and all dots that it has seen, added or removed."""

    seen: Dots
    facts: dict[Dot, Fact]

    def to_join(self, facts: Mapping[Dot, Fact], seen: Dots) -> tuple[list[Dot], list[Dot]]:
        """Return the dots that a state must remove and add to join with this delta."""
        few = len(self.seen) < len(facts)
        candidates: Iterable[Any] = self.seen if few else list(facts)
        removed = [dot for dot in candidates if dot in facts and dot in self.seen and dot not in self.facts]
        added = [dot for dot in self.facts if dot not in seen]
        return removed, added
