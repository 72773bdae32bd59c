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
    """What one question may cost.

    Raises:
        ConfigurationError: If a limit is unknown, no number, or out of range.
    """

    retrievals: Annotated[int, Bounds(least=0)] = 20
    """Searches, rewrites included. The published methods have no limit, or one that is never reached."""
    tokens: Annotated[int, Bounds(least=1)] = 256
    """Tokens of the answer. When they are used up, the short answer is asked for outright."""
    seconds: Annotated[float, Bounds(above=0, infinite=True)] = math.inf
    """Working time of the nodes; time spent waiting for a person or a restart does not count."""
    identical_retrievals: Annotated[int, Bounds(least=0)] = 20
    """How many searches of a run may be identical to earlier ones: by their query (case, white space and forms of
    letters make no difference), or because all passages that they found had been found before in this run, whether or
    not they still stand in the prompt. A search that failed is not counted. By default out of reach, because the
    published methods have no such limit; 1 ends retrieval for a model that keeps asking for the same."""
    closing_tokens: Annotated[int, Bounds(least=1)] = 24
    """Tokens for the short answer that is asked for outright."""
    reasoning_tokens: Annotated[int, Bounds(least=0)] = 2048
    """Tokens that the model may reason with, beside those of the answer."""
    fruitless_replies: Annotated[int, Bounds(least=0)] = 2
    """Replies in a row without new text (reasoning alone, a repetition, nothing) after which the model is asked again;
    after one more the run ends with what there is, or with a `NoAnswerError` if that is nothing."""

    def __post_init__(self) -> None:
        check_fields(self, "budget ")
