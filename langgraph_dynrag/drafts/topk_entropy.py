"""Bounds on the entropy of a token, given only the top alternatives that an API reports.

The probabilities of k of the V tokens are known. The remaining mass r = 1 - sum p_i lies on tokens that are not
reported, each at most as likely as the least likely of the reported top tokens, with probability c:

    sum_i -p_i ln p_i - m c ln c - q ln q   <=   H   <=   sum_i -p_i ln p_i - r ln(r / (V - k))
    with m = floor(r / c), q = r - m c

The entropy of the rest is smallest if it is packed into as few tokens as c allows, and largest if it is spread evenly.
Both bounds are attained. Triggers compare the lower bound, so a trigger that fires would also have fired on the full
distribution. Pure; no framework.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class EntropyBounds:
    """Lower and upper bound of an entropy, in nats."""

    lower: float
    upper: float | None
    """None if the size of the vocabulary is unknown."""


def entropy_bounds(
    top: Sequence[float], *, others: Sequence[float] = (), vocabulary: int | None = None
) -> EntropyBounds:
    """Bound the entropy of a distribution for which only some log-probabilities are known.

    Args:
        top: Log-probabilities of the most likely tokens: no other token is more likely than the last of them.
        others: Log-probabilities of further tokens that may have any rank, such as a sampled token.
        vocabulary: Size of the vocabulary; needed for the upper bound.

    Raises:
        ConfigurationError: If more tokens are known than the vocabulary has.
    """
    known = len(top) + len(others)
    if vocabulary is not None and known > vocabulary:
        raise ConfigurationError(f"{known} tokens are known, but the vocabulary has only {vocabulary}")
    masses = [math.exp(p) for p in (*top, *others)]
    rest = max(0.0, 1.0 - math.fsum(masses))
    largest = min((math.exp(p) for p in top), default=1.0)
    whole = math.floor(rest / largest) if largest > 0 else 0
    packed = whole * _term(largest) + _term(max(0.0, rest - whole * largest))
    entropy = math.fsum(_term(m) for m in masses)
    if vocabulary is None:
        return EntropyBounds(entropy + packed, None)
    unnamed = vocabulary - known
    spread = unnamed * _term(rest / unnamed) if unnamed else 0.0
    return EntropyBounds(entropy + packed, max(entropy + spread, entropy + packed))


def entropy_of_entry(entry: dict[str, Any]) -> float:
    """Return the lower entropy bound of one token's `logprobs` entry in the format of OpenAI's API.

    The token's own log-probability counts as an alternative if the list lacks it. Servers list a sampled token whatever
    its rank; if it is the least likely in the list, it says nothing about the tokens that are left out.
    """
    chosen = float(entry["logprob"])
    reported = sorted((float(a["logprob"]) for a in entry.get("top_logprobs") or []), reverse=True)
    listed = any(_same(a, entry) for a in entry.get("top_logprobs") or [])
    if listed and reported[-1] == chosen:
        return entropy_bounds(reported[:-1], others=[chosen]).lower
    return entropy_bounds(reported, others=[] if listed else [chosen]).lower


def _same(alternative: dict[str, Any], entry: dict[str, Any]) -> bool:
    return alternative.get("token") == entry.get("token") and float(alternative["logprob"]) == float(entry["logprob"])


def _term(mass: float) -> float:
    return -mass * math.log(mass) if mass > 0 else 0.0
