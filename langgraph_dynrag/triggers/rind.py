"""RIND, real-time information needs detection (DRAGIN: Su et al. 2024, section 3.1).

A token triggers retrieval if the model was uncertain about it (entropy), later tokens depend on it (attention), and it
is not a stop word. Paper and published code differ, and the published thresholds belong to the code's form, so there
are two named bundles:

`paper`
    Equation 5, per token: `S_i = H_i * a_i * s_i`, with `a_i = max over j > i of A_ji` in the last layer, where j runs
    over the later tokens *of the same sentence*, averaged over the heads. (The paper does not mention heads; averaging
    each head's maximum follows the code.) All of it is recorded during decoding, in the real context. The published
    thresholds do not apply to this form; the default was tuned for this package.

`reference`
    Per whitespace-separated word, punctuation included: `S_w = n_s * a_w / (sum of a over the sentence) * H_w`, where
    `n_s` is the number of words in the sentence, `a_w` the sum and `H_w` the mean over the word's tokens, and a token's
    attention the maximum over *all* queries of the draft, including its own, from a forward pass over the draft alone.
    The first token therefore always has attention 1. The code decides before it filters stop words, so function words
    can trigger retrieval; this is kept. The published thresholds apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from langgraph_dynrag.drafts.draft import Draft, DraftView, Floats, Signal, Unit, Verdict
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.confidence import above
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import Span, sentences, spaced_pieces, words_of_tokens
from rag_backbone.typed_fields import Bounds, check_fields

Bundle = Literal["paper", "reference"]


@dataclass(frozen=True, slots=True)
class RIND(BaseTrigger):
    """DRAGIN's trigger.

    Args:
        threshold: Score threshold, which depends on the bundle; `langgraph_dynrag.presets.methods` documents the
            sources of its values.
        bundle: Whether to follow the paper or the published code.

    Raises:
        ConfigurationError: If the threshold is negative or the bundle is unknown.
    """

    threshold: Annotated[float, Bounds(least=0, what="a finite number of 0 or more")]
    bundle: Bundle = "paper"

    def __post_init__(self) -> None:
        check_fields(self, "RIND's ")

    @property
    def needs(self) -> frozenset[Signal]:
        """Entropy, and attention from decoding or from a forward pass over the draft alone."""
        return frozenset({"entropy", "attention" if self.bundle == "paper" else "attention_alone"})

    @property
    def unit(self) -> Unit:
        """A sentence; the reference bundle drafts the whole answer first, as the code does."""
        return Unit("sentence" if self.bundle == "paper" else "all")

    def judge(self, view: DraftView) -> Verdict:
        """Score the judged tokens; the first one above the threshold fires."""
        scores = paper_scores(view) if self.bundle == "paper" else reference_scores(view)
        return above(scores, self.threshold, "RIND")


def check_bundle(bundle: str) -> None:
    """Raise `ConfigurationError` if the bundle is unknown."""
    if bundle not in ("paper", "reference"):
        raise ConfigurationError(f"bundle is {bundle!r}; known: 'paper', 'reference'")


def paper_scores(view: DraftView) -> tuple[float | None, ...]:
    """Return `H_i * a_i` for each judged token; None where `s_i = 0`."""
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
    """Compute how much later tokens attend to each token: mean over heads of the maximum over later queries.

    Args:
        weights: (heads, tokens, tokens), row = query.

    Returns:
        (tokens,); 0 for the last token, which has no later tokens.
    """
    later = np.tril(np.ones(weights.shape[1:], bool), k=-1)  # query > key
    return np.where(later, weights, 0.0).max(axis=1, initial=0.0).mean(axis=0)


def reference_scores(view: DraftView) -> tuple[float | None, ...]:
    """Return the word's score for each judged token; None for tokens outside words."""
    draft = view.unit
    if not len(draft):
        return ()
    assert view.attend_alone is not None
    assert draft.entropies is not None
    alone = view.attend_alone(draft.text, draft.token_ids)
    attention = alone.weights.max(axis=1).mean(axis=0)  # (tokens,), the diagonal included
    return word_scores(draft, attention, np.asarray(draft.entropies, np.float32))


def word_scores(draft: Draft, attention: Floats, entropies: Floats) -> tuple[float | None, ...]:
    """Compute `n_s * a_w / (sum of a over the sentence) * H_w` of the word that each token belongs to.

    Args:
        draft: The draft; its words are separated by whitespace.
        attention: (tokens,), attention paid to each token.
        entropies: (tokens,), in nats.
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
    scores = sentence_weights(draft.text, spans, a) * h
    return tuple(None if w is None else float(scores[w]) for w in word_of)


def sentence_weights(text: str, spans: Sequence[Span], attention: Floats) -> Floats:
    """Compute `n_s * a_w / (sum of a over the sentence)` for each word; 0 in sentences that get no attention.

    Args:
        text: The text.
        spans: The characters of each word.
        attention: (words,), attention paid to each word.
    """
    weights = np.zeros(len(spans))
    for sentence in sentences(text):
        members = [w for w, span in enumerate(spans) if sentence.start <= span.start < sentence.end]
        total = attention[members].sum()
        if total > 0:
            weights[members] = len(members) * attention[members] / total
    return weights
