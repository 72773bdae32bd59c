"""A lower bound on the entropy of a token, given only the top alternatives that an API reports.

The remaining mass r = 1 - sum p_i lies on tokens that are not reported, each at most as likely as the least likely of
the reported top tokens, with probability c:

    sum_i -p_i ln p_i - m c ln c - q ln q   <=   H,  with m = floor(r / c), q = r - m c

The entropy of the rest is smallest if it is packed into as few tokens as c allows. The bound is attained. A trigger
that fires on it would also have fired on the full distribution. Pure; no framework.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def least_entropy(top: Sequence[float], others: Sequence[float] = ()) -> float:
    """Return the lower bound, in nats, on the entropy of a distribution of which some log-probabilities are known.

    Args:
        top: Log-probabilities of the most likely tokens: no other token is more likely than the last of them.
        others: Log-probabilities of further tokens that may have any rank, such as a sampled token.
    """
    masses = [math.exp(p) for p in (*top, *others)]
    rest = max(0.0, 1.0 - math.fsum(masses))
    largest = min((math.exp(p) for p in top), default=1.0)
    whole = math.floor(rest / largest) if largest > 0 else 0
    packed = whole * _term(largest) + _term(max(0.0, rest - whole * largest))
    return math.fsum(_term(m) for m in masses) + packed


def entropy_of_entry(entry: dict[str, Any]) -> float:
    """Return the lower entropy bound of one token's `logprobs` entry in the format of OpenAI's API.

    The token's own log-probability counts as an alternative if the list lacks it. Servers list a sampled token whatever
    its rank; if it is the least likely in the list, it says nothing about the tokens that are left out.
    """
    chosen = float(entry["logprob"])
    reported = sorted((float(a["logprob"]) for a in entry.get("top_logprobs") or []), reverse=True)
    listed = any(_same(a, entry) for a in entry.get("top_logprobs") or [])
    if listed and reported[-1] == chosen:
        return least_entropy(reported[:-1], [chosen])
    return least_entropy(reported, [] if listed else [chosen])


def _same(alternative: dict[str, Any], entry: dict[str, Any]) -> bool:
    return alternative.get("token") == entry.get("token") and float(alternative["logprob"]) == float(entry["logprob"])


def _term(mass: float) -> float:
    return -mass * math.log(mass) if mass > 0 else 0.0
