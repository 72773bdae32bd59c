"""What a server sends: the tokens of a reply, or a failure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Token = tuple[str, float] | tuple[str, float, int]
"""Text, probability and, for text completions, the token id."""
Says = Callable[[dict[str, Any]], Sequence[Token]]


@dataclass(frozen=True)
class Fault:
    """A failure of one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "out of order"
    after: int | None = None
    """Number of tokens streamed before `then` happens."""
    then: Literal["reset", "stop", "garbage", "error", "hang"] = "reset"
    body: str | None = None
    """Body sent instead of an answer."""
    seconds: float = 0.0
    """Delay before anything is sent; for `hang`, before the rest is sent."""
    path: str = "/completions"


class Thought(str):
    """Text of a reasoning token that is sent in a separate field."""

    __slots__ = ()


class Refused(Exception):
    """The server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
