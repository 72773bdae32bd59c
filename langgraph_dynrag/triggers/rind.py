"""RIND, real-time information needs detection (DRAGIN: Su et al. 2024, section 3.1).

A token calls for retrieval if the model was unsure of it (entropy), later tokens depend on it (attention), and
it means something (no stop word). Paper and published code differ, and the published thresholds belong to the
code's form, so there are two named bundles:

`paper`
    Equation 5, per token: `S_i = H_i * a_i * s_i`, with `a_i = max over j > i of A_ji` in the last layer, j running
    over the later tokens *of the same sentence*, averaged over the heads (the paper does not speak of heads; the
    average of each head's maximum is the code's choice). All from the one decoding pass, in the real context. The
    published thresholds do not apply to this form; the default was tuned by us.

`reference`
    Per word (between white space, punctuation included): `S_w = n_s * a_w / (sum of a over the sentence) * H_w`, with
    `n_s` the sentence's words, `a_w` the sum and `H_w` the mean over the word's tokens, and a token's attention the
    maximum over *all* queries of the draft, its own included, from a forward over the draft alone. Hence the first
    token always has attention 1. The code decides before it filters stop words, so function words trigger; that is
    kept. Thresholds: the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from langgraph_dynrag.drafts.draft import Draft, DraftView, Floats, Signal, Unit, Verdict
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.confidence import above
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import sentences, spaced_pieces, words_of_tokens
from rag_backbone.typed_fields import Bounds, check_fields

Bundle = Literal["paper", "reference"]


@dataclass(frozen=True, slots=True)
class RIND(BaseTrigger):
    """DRAGIN's trigger.

    Args:
        threshold: Depends on the bundle; see `langgraph_dynrag.presets.methods` for where the values come from.
        bundle: Which of the two forms.

    Raises:
        ConfigurationError: If the threshold is negative or the bundle unknown.
    """

    threshold: Annotated[float, Bounds(least=0, what="a finite number of 0 or more")]
    bundle: Bundle = "paper"

    def __post_init__(self) -> None:
        check_fields(self, "RIND's ")

    @property
    def needs(self) -> frozenset[Signal]:
        """Entropy, and attention from the pass or from a forward over the draft alone."""
        return frozenset({"entropy", "attention" if self.bundle == "paper" else "attention_alone"})

    @property
    def unit(self) -> Unit:
        """A sentence; the reference form drafts the whole answer first, as the code does."""
        return Unit("sentence" if self.bundle == "paper" else "all")

    def judge(self, view: DraftView) -> Verdict:
        """Score the judged tokens; the first one above the threshold fires."""
        scores = paper_scores(view) if self.bundle == "paper" else reference_scores(view)
        return above(scores, self.threshold, "RIND")


def check_bundle(bundle: str) -> None:
    """Raise `ConfigurationError` for an unknown bundle."""
    if bundle not in ("paper", "reference"):
        raise ConfigurationError(f"bundle is {bundle!r}; known: 'paper', 'reference'")


def paper_scores(view: DraftView) -> tuple[float | None, ...]:
    """`H_i * a_i` of each judged token; None where `s_i = 0`."""
    n = view.judged
    if n == 0:
        return ()
    assert view.attention is not None
    assert view.draft.entropies is not None
    attention = later_attention(view.attention.within(n))
    return tuple(
        float(view.draft.entropies[t] * attention[t]) if view.token_carries_content(t) else None for t in range(n)
    )


def later_attention(weights: Floats) -> Floats:
    """How much later tokens attend to each token: mean over heads of the maximum over later queries.

    Args:
        weights: (heads, tokens, tokens), row = query.

    Returns:
        (tokens,); 0 for the last token, which nothing follows.
    """
    later = np.tril(np.ones(weights.shape[1:], bool), k=-1)  # query > key
    return np.where(later, weights, 0.0).max(axis=1, initial=0.0).mean(axis=0)


def reference_scores(view: DraftView) -> tuple[float | None, ...]:
    """The word's score for each judged token; None for tokens of no word."""
    draft = view.unit
    if not len(draft):
        return ()
    assert view.attend_alone is not None
    assert draft.entropies is not None
    alone = view.attend_alone(draft.text, draft.token_ids)
    attention = alone.weights.max(axis=1).mean(axis=0)  # (tokens,), the diagonal included
    return word_scores(draft, attention, np.asarray(draft.entropies, np.float32))


def word_scores(draft: Draft, attention: Floats, entropies: Floats) -> tuple[float | None, ...]:
    """`n_s * a_w / (sum over the sentence of a) * H_w` of the word that each token belongs to.

    Args:
        draft: Its words are what stands between white space.
        attention: (tokens,).
        entropies: (tokens,).
    """
    spans = spaced_pieces(draft.text)
    word_of = words_of_tokens(draft.spans, spans)
    a, h, count = np.zeros(len(spans)), np.zeros(len(spans)), np.zeros(len(spans))
    for t, w in enumerate(word_of):
        if w is not None:
            a[w] += attention[t]
            h[w] += entropies[t]
            count[w] += 1
    h /= np.maximum(count, 1)
    scores = np.zeros(len(spans))
    for sentence in sentences(draft.text):
        members = [w for w, span in enumerate(spans) if sentence.start <= span.start < sentence.end]
        total = a[members].sum()
        if total > 0:
            scores[members] = len(members) * a[members] / total * h[members]
    return tuple(None if w is None else float(scores[w]) for w in word_of)
