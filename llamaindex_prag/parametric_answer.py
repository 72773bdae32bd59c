"""An answer from adapters: its text, and which documents gave it."""

from __future__ import annotations

from typing import Any


class ParametricAnswer(str):
    """An answer as a string, which also says whose adapters acted and why.

    Args:
        text: The answer.
        used: Positions, in the `documents` of the call, of those whose adapters acted.
        scores: Score of each document by the route; empty without one, None for a document that was not judged.
        why: Why these documents acted, or why none did; empty without a route.

    Example:
        >>> answer = ParametricAnswer("1871", used=(1,), scores=(0.2, 1.4), why="the best of 2 by route='lexical'")
        >>> answer == "1871", answer.used
        (True, (1,))
    """

    __slots__ = ("scores", "used", "why")

    used: tuple[int, ...]
    scores: tuple[float | None, ...]
    why: str

    def __new__(
        cls, text: str, used: tuple[int, ...] = (), scores: tuple[float | None, ...] = (), why: str = ""
    ) -> ParametricAnswer:
        """Return the text with what gave it."""
        made = super().__new__(cls, text)
        made.used, made.scores, made.why = used, scores, why
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle text and attributes."""
        return type(self), (str(self), self.used, self.scores, self.why)
