"""Entropy from the few likeliest alternatives that an API reports, as bounds.

Of a distribution over V tokens, k are known with their masses; the rest r = 1 - sum p_i lies on tokens that nobody
names, each of them at most as likely as the least likely of the reported top, c:

    sum_i -p_i ln p_i - m c ln c - q ln q   <=   H   <=   sum_i -p_i ln p_i - r ln(r / (V - k))
    with m = floor(r / c), q = r - m c

The rest's entropy is least where it is packed into as few tokens as c allows, and greatest where it is spread evenly.
Both bounds are reached by a distribution. Triggers compare the lower one, so that whatever fires would have fired on
the whole distribution. Pure; no framework.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class EntropyBounds:
    """What the entropy lies between, in nats."""

    lower: float
    upper: float | None
    """None: unknown, as the size of the vocabulary is."""


def entropy_bounds(
    top: Sequence[float], *, others: Sequence[float] = (), vocabulary: int | None = None
) -> EntropyBounds:
    """Bound the entropy of a distribution of which some log-probabilities are known.

    Args:
        top: Log-probabilities of the likeliest tokens: no token that is left out is likelier than the last of them.
        others: Of further tokens, about which nothing of the kind is known, such as a sampled one.
        vocabulary: How many tokens there are; for the upper bound.

    Raises:
        ConfigurationError: If there are more known tokens than the vocabulary has.
    """
    known = len(top) + len(others)
    if vocabulary is not None and known > vocabulary:
        raise ConfigurationError(f"{known} tokens are known, and the vocabulary has {vocabulary}")
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
    """The lower bound for one token as OpenAI's API describes it.

    The token's own log-probability counts as an alternative if the list lacks it. Servers put a sampled token on the
    list whatever its rank, so where it is the least likely one it says nothing of those that are left out.
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
