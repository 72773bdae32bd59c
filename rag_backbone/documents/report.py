"""Collects and reports what was skipped or changed while files were read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from rag_backbone.documents.pieces import Note, Skipped

_LINES = 20
_NAMES = 3

Pairs = Sequence[tuple[str, str]]


class Findings:
    """Skipped parts and changes, in the order in which they were found."""

    def __init__(self, pieces: Iterable[Skipped | Note] = ()) -> None:
        self._skipped: list[Skipped] = []
        self._notes: list[Note] = []
        for piece in pieces:
            self.add(piece)

    def add(self, piece: Skipped | Note) -> None:
        """Add one finding."""
        if isinstance(piece, Skipped):
            self._skipped.append(piece)
        else:
            self._notes.append(piece)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Names and reasons of skipped parts."""
        return tuple((s.name, s.reason) for s in self._skipped)

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """Names and descriptions of changes."""
        return tuple((n.name, n.text) for n in self._notes)

    def log(self, logger: logging.Logger, source: str) -> None:
        """Log unexpected findings at WARNING, and what a rule leaves out (hidden, excluded) at INFO."""
        unexpected = [(s.name, s.reason) for s in self._skipped if not s.deliberate]
        by_rule = [(s.name, s.reason) for s in self._skipped if s.deliberate]
        for level, verb, pairs in (
            (logging.WARNING, "skipped", unexpected),
            (logging.WARNING, "changed", self.notes),
            (logging.INFO, "left out", by_rule),
        ):
            if pairs:
                logger.log(level, "%s: %d %s; %s", source, len(pairs), verb, "; ".join(grouped(pairs)))


def told(skipped: Pairs, notes: Pairs) -> str:
    """Return indented lines of what was skipped and changed, headed by their counts; `""` if there is nothing."""
    lines = []
    for name, pairs in (("skipped", skipped), ("changed", notes)):
        if pairs:
            lines += [f"{len(pairs)} {name}:", *(f"  {line}" for line in grouped(pairs))]
    return "\n".join(lines)


def grouped(pairs: Pairs) -> list[str]:
    """Return a line for each reason, with the names that share it; at most 20 lines."""
    names: dict[str, list[str]] = {}
    for name, reason in pairs:
        names.setdefault(reason, []).append(name)
    lines = [_line(reason, of) for reason, of in names.items()]
    more = len(lines) - _LINES
    return lines if more <= 0 else [*lines[:_LINES], f"and {more} more reasons"]


def _line(reason: str, names: list[str]) -> str:
    listed = ", ".join(names[:_NAMES])
    if len(names) > _NAMES:
        listed += f" and {len(names) - _NAMES} more"
    return f"{listed}: {reason}"
