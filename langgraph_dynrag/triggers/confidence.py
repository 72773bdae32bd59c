"""Triggers on the model's confidence in its tokens: token probability (FLARE) or entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.features import new_name_tokens
from rag_backbone.typed_fields import Bounds, Probability


@dataclass(frozen=True, slots=True)
class TokenProbability(BaseTrigger):
    """Retrieves if a token's probability is below a threshold.

    FLARE (Jiang et al. 2023, section 3.2.1) accepts a tentative sentence if every token's probability is at least
    `theta`. `aggregate="mean"` compares the sentence's mean probability instead, like a variant in DRAGIN's comparison
    (it is not FLARE).

    Args:
        theta: Probability threshold; 0 never retrieves, 1 practically always.
        aggregate: Whether to compare the minimum or the mean probability.
        tokens: `"new_names"` judges only the tokens of names and numbers that occur neither in the question nor in the
            answer so far, and does not retrieve for a sentence without any. It is not FLARE, and ranks sentences better
            (`docs/results-triggers.md`).

    Raises:
        ConfigurationError: If `theta` is not a probability.
    """

    theta: Probability = 0.8
    aggregate: Literal["min", "mean"] = "min"
    tokens: Literal["all", "new_names"] = "all"

    needs = frozenset({"logprob"})

    def judge(self, view: DraftView) -> Verdict:
        """Compare the minimum (or mean) probability of the judged tokens with `theta`."""
        judged = range(len(view.unit)) if self.tokens == "all" else new_name_tokens(view)
        known = {t: math.exp(view.unit.logprobs[t]) for t in judged}
        if not known:
            nothing = "no new name was written" if len(view.unit) else "nothing was written"
            return Verdict(False, nothing, trigger="token probability", threshold=self.theta)
        scores = tuple(known.get(t) for t in range(len(view.unit)))
        hits = tuple(t for t, p in known.items() if p < self.theta)
        score = min(known.values()) if self.aggregate == "min" else math.fsum(known.values()) / len(known)
        retrieve = score < self.theta
        position = (hits[0] if hits else min(known)) if retrieve else None
        word = f"{self.aggregate} probability {score:.3f} {'<' if retrieve else '>='} {self.theta:g}"
        return Verdict(retrieve, word, scores, score, self.theta, position, hits, "token probability")


@dataclass(frozen=True, slots=True)
class Entropy(BaseTrigger):
    """Retrieves if a token of a content word was drawn from a distribution with high entropy.

    Args:
        threshold: Entropy threshold in nats.
        content_only: Whether to skip tokens of stop words and punctuation.

    Raises:
        ConfigurationError: If the threshold is negative or not a number.
    """

    threshold: Annotated[float, Bounds(least=0, what="an entropy in nats, 0 or more,")] = 2.0
    content_only: bool = True

    needs = frozenset({"entropy"})

    def judge(self, view: DraftView) -> Verdict:
        """Compare the largest entropy of the judged tokens with the threshold."""
        entropies = view.unit.entropies or ()
        scores = tuple(
            h if not self.content_only or view.token_carries_content(t) else None for t, h in enumerate(entropies)
        )
        return above(scores, self.threshold, "entropy", "nats")


def above(
    scores: tuple[float | None, ...],
    threshold: float,
    trigger: str,
    unit: str = "",
    *,
    inclusive: bool = False,
) -> Verdict:
    """Return the verdict of a trigger that fires at the first token whose score exceeds (or reaches) the threshold."""
    hits = tuple(
        t
        for t, score in enumerate(scores)
        if score is not None and (score > threshold or (inclusive and score == threshold))
    )
    known = [score for score in scores if score is not None]
    deciding = scores[hits[0]] if hits else max(known, default=None)
    shown = "none" if deciding is None else f"{deciding:.3f}"
    sign = (">=" if inclusive else ">") if hits else ("<" if inclusive else "<=")
    reason = f"{trigger} {shown} {sign} {threshold:g}{' ' + unit if unit else ''}"
    return Verdict(bool(hits), reason, scores, deciding, threshold, hits[0] if hits else None, hits, trigger)
