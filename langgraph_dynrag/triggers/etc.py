"""ETC, entropy-trend-based retrieval: decide by changes in the entropy of content words, not by its level.

Paper and published code differ, so there are two named bundles:

`paper`
    Without stop words: first difference `dH_t = H_{t+1} - H_t`, second difference `d2_t = dH_{t+1} - dH_t`, the running
    mean `E_t` of the second differences, and the smoothed value `w_t d2_t + (1 - w_t) d2_{t-1}` with
    `w_t = |d2_{t-1} - E_t| / (|d2_t - E_t| + |d2_{t-1} - E_t|)`: the more a value deviates, the smaller its weight.
    (The paper does not say how the second weight is normalised; here the two sum to 1.) Retrieve if the absolute value
    reaches `alpha`. Attention is not needed.

`reference`
    Per content word, with the maximum entropy of its tokens: `M = f d2_t + (1 - f) d2_{t-1}`, `f = 0.9 + 0.1 w_t`,
    times `n_s * a_w / (sum of a over the sentence)`; retrieve if it exceeds the threshold, sign included. `a_w` is the
    maximum over the *keys* that the word attends to, from a forward pass over the draft alone, as in the code.

The second difference `d2_t` is known only once content word t+2 is, so the position reported is that of word t+2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langgraph_dynrag.drafts.draft import DraftView, Signal, Unit, Verdict
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.confidence import above
from langgraph_dynrag.triggers.rind import Bundle, sentence_weights
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True, slots=True)
class ETC(BaseTrigger):
    """Retrieves where the entropy of the content words changes abruptly.

    Args:
        threshold: The paper's alpha (in nats) or the code's theta, depending on the bundle.
        bundle: Whether to follow the paper or the published code.

    Raises:
        ConfigurationError: If the threshold is not finite, if it is negative with `bundle="paper"`, or if the bundle is
            unknown.
    """

    threshold: float
    bundle: Bundle = "paper"

    def __post_init__(self) -> None:
        check_fields(self, "ETC's ")
        if self.bundle == "paper" and self.threshold < 0:
            raise ConfigurationError(f"ETC's threshold is {self.threshold}; a finite number of 0 or more is needed")

    @property
    def needs(self) -> frozenset[Signal]:
        """Entropy; the reference bundle also needs attention from a forward pass over the draft alone."""
        return frozenset({"entropy"} if self.bundle == "paper" else {"entropy", "attention_alone"})

    @property
    def unit(self) -> Unit:
        """A sentence; the reference bundle drafts the whole answer first, as the code does."""
        return Unit("sentence" if self.bundle == "paper" else "all")

    def judge(self, view: DraftView) -> Verdict:
        """Score the judged tokens; the first one beyond the threshold fires."""
        if self.bundle == "reference":
            return above(reference_scores(view), self.threshold, "ETC")
        return above(paper_scores(view), self.threshold, "ETC", "nats", inclusive=True)


def smoothed_second_difference(entropies: Sequence[float]) -> list[float | None]:
    """Return the paper's smoothed second difference for each entropy; None for the first three, where it is undefined.

    Position `t` holds the value that `entropies[t]` completes. The first second difference has no predecessor to be
    smoothed with, so the fourth entropy completes the first value.
    """
    second = np.diff(np.asarray(entropies, np.float64), n=2)
    values: list[float | None] = [None] * len(entropies)
    for t in range(1, len(second)):
        mean = second[: t + 1].mean()
        now, before = abs(second[t] - mean), abs(second[t - 1] - mean)
        weight = before / (now + before) if now + before > 0 else 0.5
        values[t + 2] = float(weight * second[t] + (1 - weight) * second[t - 1])
    return values


def paper_scores(view: DraftView) -> tuple[float | None, ...]:
    """Return the absolute smoothed second difference for each judged token; None for tokens without a value.

    The trend continues from the accepted text; the entropies of its content tokens are the view's `history`.
    """
    assert view.draft.entropies is not None
    content = [t for t in range(view.judged) if view.token_carries_content(t)]
    entropies = [*view.history, *(view.draft.entropies[t] for t in content)]
    values = smoothed_second_difference(entropies)[len(view.history) :]
    scores: list[float | None] = [None] * view.judged
    for t, value in zip(content, values, strict=True):
        scores[t] = None if value is None else abs(value)
    return tuple(scores)


def reference_scores(view: DraftView) -> tuple[float | None, ...]:
    """Return the published code's score for each judged token; None outside content words."""
    draft = view.unit
    if not len(draft):
        return ()
    assert view.attend_alone is not None
    assert draft.entropies is not None
    alone = view.attend_alone(draft.text, draft.token_ids)
    paid = alone.weights.max(axis=2).mean(axis=0)  # (tokens,): over keys, the diagonal included
    attention, entropy = np.zeros(len(draft.words)), np.zeros(len(draft.words))
    for t, w in enumerate(draft.word_of_token):
        if w is not None:
            attention[w] += paid[t]
            entropy[w] = max(entropy[w], draft.entropies[t])
    weight = sentence_weights(draft.text, draft.word_spans, attention)
    trend = _reference_trend([float(entropy[w]) for w in range(len(entropy)) if view.content[w]])
    by_word = dict(zip([w for w in range(len(entropy)) if view.content[w]], trend, strict=True))
    return tuple(
        None if w is None or by_word.get(w) is None else float(weight[w] * by_word[w]) for w in draft.word_of_token
    )


def _reference_trend(entropies: Sequence[float]) -> list[float | None]:
    """Compute `f d2_t + (1 - f) d2_{t-1}` with `f = 0.9 + 0.1 w_t`, and 0 before the first second difference."""
    second = np.diff(np.asarray(entropies, np.float64), n=2)
    values: list[float | None] = [None] * len(entropies)
    previous = 0.0
    for t, current in enumerate(second):
        mean = second[: t + 1].mean()
        now, before = abs(current - mean), abs(previous - mean)
        factor = 0.9 + 0.1 * (before / (now + before) if now + before > 0 else 0.5)
        values[t + 2] = float(factor * current + (1 - factor) * previous)
        previous = float(current)
    return values
