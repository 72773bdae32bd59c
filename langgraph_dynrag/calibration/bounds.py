"""Choose thresholds of a probability with a bound on what is lost: needed retrievals, or right sentences. Pure.

A retrieval is made where `p >= t`. Let `p_(1) <= ... <= p_(n)` be the probabilities at `n` held-out points that needed
one, exchangeable with those to come. With `t = p_(k)`, more than a share alpha of the needed points to come is missed
only if fewer than `k` of the `n` lie in the lowest alpha of their distribution, so

    P(missed(t) > alpha) <= P(Binomial(n, alpha) <= k - 1)

with equality for a continuous distribution. The largest `k` for which the right side is at most `1 - confidence` gives
the fewest searches. This is split conformal prediction's guarantee conditional on the calibration set (Vovk 2012,
"Conditional validity of inductive conformal predictors", proposition 2a), Wilks's (1941) tolerance limit.

An answer is given up where `p >= t`. From right sentences, the same bound on those that are given up holds for the
smallest number above `p_(n+1-k)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from langgraph_dynrag.calibration.folds import TooFewPointsError


def missed_threshold(needed: Sequence[float], alpha: float, confidence: float) -> float:
    """Return the highest threshold that misses at most a share of the needed retrievals, at a confidence.

    Args:
        needed: Probabilities at held-out points that needed a retrieval, independent of each other.
        alpha: The share that may be missed, above 0 and below 1.
        confidence: Confidence of the bound, above 0 and below 1.

    Raises:
        TooFewPointsError: If no threshold has this bound with so few points; the message says how many it takes.
    """
    refuse_too_few("missed", alpha, confidence, len(needed), "in which a retrieval is needed")
    return sorted(needed)[missed_rank(len(needed), alpha, confidence) - 1]


def abstain_threshold(right: Sequence[float], alpha: float, confidence: float) -> float:
    """Return the lowest threshold that gives at most a share of the right sentences up, at a confidence.

    It is above 1 if a right sentence has a probability of 1 and may not be given up.

    Args:
        right: Probabilities at held-out sentences that are right, independent of each other.
        alpha: The share that may be given up, above 0 and below 1.
        confidence: Confidence of the bound, above 0 and below 1.

    Raises:
        TooFewPointsError: If no threshold has this bound with so few sentences; the message says how many it takes.
    """
    refuse_too_few("given_up", alpha, confidence, len(right), "with a right sentence that was written with passages")
    return math.nextafter(sorted(right)[-missed_rank(len(right), alpha, confidence)], math.inf)


def refuse_too_few(option: str, alpha: float, confidence: float, count: int, which: str = "") -> None:
    """Refuse a number of held-out questions with which no threshold has the bound.

    Args:
        option: The name of the bound.
        alpha: The share that it allows.
        confidence: Its confidence.
        count: Number of questions held out that it can rest on.
        which: What is asked of them.

    Raises:
        TooFewPointsError: If there are too few; the message says how many it takes.
    """
    if count < (least := least_points(alpha, confidence)):
        raise TooFewPointsError(
            f"{option}={alpha:g} at confidence {confidence:g} needs {least} held-out questions"
            f"{which and ' '}{which}, and there are {count}; give more questions, of which a third is held out, or "
            f"allow more: a greater {option}=, a lower confidence="
        )


def missed_rank(count: int, alpha: float, confidence: float) -> int:
    """Return the largest `k` with `P(Binomial(count, alpha) <= k - 1) <= 1 - confidence`; 0 if there is none."""
    below, k = 0.0, 0
    while k < count:
        below += math.comb(count, k) * alpha**k * (1 - alpha) ** (count - k)
        if below > 1 - confidence:
            break
        k += 1
    return k


def least_points(alpha: float, confidence: float) -> int:
    """Return how many needed points a bound takes at least: `(1 - alpha)^n <= 1 - confidence`."""
    found = max(1, math.floor(math.log(1 - confidence) / math.log(1 - alpha)))
    return found if missed_rank(found, alpha, confidence) else found + 1
