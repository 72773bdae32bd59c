"""Limits of a run. Reaching one ends retrieval or drafting, never the answer, and is recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from rag_backbone.checks import known_arguments
from rag_backbone.typed_fields import Bounds, check_fields


@known_arguments
@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits on what answering one question may cost.

    Raises:
        ConfigurationError: If a limit is unknown, not a number, or out of range.
    """

    retrievals: Annotated[int, Bounds(least=0)] = 20
    """Maximum number of searches, rewrites included. The published methods have no limit, or one never reached."""
    tokens: Annotated[int, Bounds(least=1)] = 256
    """Maximum number of answer tokens. When they are used up, the short answer is asked for explicitly."""
    seconds: Annotated[float, Bounds(above=0, infinite=True)] = math.inf
    """Working time of the nodes. Time spent waiting for a person or a restart does not count."""
    identical_retrievals: Annotated[int, Bounds(least=0)] = 20
    """Maximum number of searches of a run that repeat earlier ones: by their query (ignoring case, white space and
    Unicode forms of letters), or because all passages that they found had been found before in this run, whether or not
    they are still in the prompt. A failed search does not count. The default is practically out of reach, because the
    published methods have no such limit; 1 ends retrieval for a model that keeps asking for the same."""
    closing_tokens: Annotated[int, Bounds(least=1)] = 24
    """Tokens reserved for the short answer that is asked for explicitly."""
    reasoning_tokens: Annotated[int, Bounds(least=0)] = 2048
    """Tokens that the model may use for reasoning, in addition to those of the answer."""
    fruitless_replies: Annotated[int, Bounds(least=0)] = 2
    """Number of consecutive replies without new text (only reasoning, a repetition, or nothing) after which the model
    is still asked again. After one more, the run ends with the text so far, or with a `NoAnswerError` if there is
    none."""

    def __post_init__(self) -> None:
        check_fields(self, "budget ")
