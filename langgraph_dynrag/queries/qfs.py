"""QFS, query formulation by self-attention (DRAGIN: Su et al. 2024, section 3.2).

The query consists of the words of the question and the answer so far that the model attends to most at the token that
triggered retrieval, in text order.

`paper`
    Attention of the triggering token itself (`A_i = a_{i,1} ... a_{i,i-1}`), last layer, averaged over the heads,
    recorded during decoding in the real context. Only words of the question and the answer are candidates, because
    words of exemplars and documents say nothing about what is missing.

`reference`
    As in the published code: question, accepted text and draft sentence are encoded again without their context. For
    each hit word, the rows that *predict* its tokens (i - 1), restricted to positions before the word and normalised to
    1, are averaged, and then averaged over the hit words, which are not candidates themselves. If no hit is a content
    word, the code divides by zero and returns the first words; here all hits are used in that case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from langgraph_dynrag.drafts.draft import AloneAttention, DraftView, Floats, Signal, Verdict
from langgraph_dynrag.queries.base import BaseFormulator, QueryPlan
from langgraph_dynrag.triggers.fixed import EveryNTokens, EverySentence, Once
from langgraph_dynrag.triggers.rind import Bundle
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import Span, sentences, token_spans, tokens_of_word, words, words_of_tokens
from rag_backbone.typed_fields import Bounds


@dataclass(frozen=True)
class QFS(BaseFormulator):
    """DRAGIN's query.

    Args:
        n: Maximum number of words in the query; published settings are 25 to 40.
        bundle: Whether to follow the paper or the published code.

    Raises:
        ConfigurationError: If `n` is less than 1 or the bundle is unknown.
    """

    n: Annotated[int, Bounds(least=1, what="at least 1 word")] = 25
    bundle: Bundle = "paper"

    @property
    def needs(self) -> frozenset[Signal]:
        """Attention from decoding, or from a forward pass over question and answer alone."""
        return frozenset({"attention" if self.bundle == "paper" else "attention_alone"})

    def check_with(self, settings: Any) -> None:
        """Refuse `Settings`, or an agent's `WatchOptions`, whose trigger does not point to a token.

        Raises:
            ConfigurationError: If the trigger is `EveryNTokens`, `EverySentence` or `Once`.
        """
        if isinstance(settings.trigger, EveryNTokens | EverySentence | Once):
            raise ConfigurationError(
                f"QFS reads the attention of the token that needs information, but {settings.trigger} points to none. "
                "Use RIND, ETC, Entropy or TokenProbability, or another query formulator."
            )

    def plan(self, view: DraftView, verdict: Verdict) -> QueryPlan:
        """Return the most attended words in text order, or the question if there are none."""
        if verdict.position is None:
            raise ConfigurationError(
                f"QFS needs a trigger that points to a token, but {verdict.trigger!r} fires after a piece of text. "
                "Use RIND, ETC, Entropy or TokenProbability, or another query formulator."
            )
        text, weighted = paper_weights(view, verdict) if self.bundle == "paper" else reference_weights(view, verdict)
        chosen = most_attended(text, weighted, view, self.n)
        return QueryPlan((" ".join(chosen) or view.question,))


Weighted = list[tuple[Span, float]]
"""Candidate words with the attention paid to them."""


def paper_weights(view: DraftView, verdict: Verdict) -> tuple[str, Weighted]:
    """Return the words before the triggering token, each with the sum of that token's attention to it."""
    assert view.attention is not None
    assert view.context is not None
    assert verdict.position is not None
    row = view.attention.of_token(verdict.position)
    start, accepted = view.attention.start, len(view.context.answer)
    positions = [
        *view.context.question_positions,
        *range(start - accepted, start),
        *range(start, start + verdict.position),
    ]
    # The line break separates the question's last word from the answer's first.
    pieces = [*view.context.question, "\n", *view.context.answer, *view.draft.pieces[: verdict.position]]
    weights = [float(row[p]) for p in positions]
    weights.insert(len(view.context.question), 0.0)
    text = "".join(pieces)
    # The word that the triggering token belongs to is not complete yet.
    unfinished = view.draft.word_of_token[verdict.position]
    length = len(text)
    if unfinished is not None:
        length -= max(view.draft.spans[verdict.position].start - view.draft.word_spans[unfinished].start, 0)
    return text, [(w, v) for w, v in word_sums(text, pieces, np.asarray(weights)) if w.end <= length]


def reference_weights(view: DraftView, verdict: Verdict) -> tuple[str, Weighted]:
    """Return words of question, answer and sentence with their attention, as the published code computes it."""
    assert view.attend_alone is not None
    assert verdict.position is not None
    before, sentence, hits = hit_characters(view, verdict)
    text = f"{view.question} {before}{sentence}"
    alone = view.attend_alone(text, None)
    offset = len(text) - len(sentence)
    spans = token_spans(alone.pieces)
    word_spans = words(text)
    word_of = words_of_tokens(spans, word_spans)
    hit_words = sorted({w for c in hits for w, s in enumerate(word_spans) if s.start <= c + offset < s.end})
    kept = view.carries_content([text[word_spans[w].start : word_spans[w].end] for w in hit_words])
    hit_words = [w for w, keep in zip(hit_words, kept, strict=True) if keep] or hit_words
    total = np.zeros(len(word_spans))
    for w in hit_words:
        total += _attention_before(alone, word_of, tokens_of_word(w, spans, word_spans), len(word_spans))
    total /= max(len(hit_words), 1)
    return text, [(s, float(total[w])) for w, s in enumerate(word_spans) if w not in hit_words and total[w] > 0]


def hit_characters(view: DraftView, verdict: Verdict) -> tuple[str, str, list[int]]:
    """Return the text before the sentence of the trigger, the sentence, and where in it each hit begins."""
    assert verdict.position is not None
    draft = view.unit
    # A token's text may begin with the space before its word.
    starts = {t: _first_letter(draft.text, draft.spans[t]) for t in (verdict.position, *verdict.hits)}
    at = starts[verdict.position]
    sentence = next((s for s in sentences(draft.text) if s.start <= at < s.end), Span(0, len(draft.text)))
    hits = sorted({c - sentence.start for c in starts.values() if sentence.start <= c < sentence.end})
    return view.accepted + draft.text[: sentence.start], draft.text[sentence.start : sentence.end], hits


def word_sums(text: str, pieces: Sequence[str], weights: Floats) -> Weighted:
    """Sum the weights of the tokens over each word of the text."""
    spans = words(text)
    sums = np.zeros(len(spans))
    for w, weight in zip(words_of_tokens(token_spans(pieces), spans), weights, strict=True):
        if w is not None:
            sums[w] += weight
    return list(zip(spans, sums.tolist(), strict=True))


def most_attended(text: str, weighted: Weighted, view: DraftView, n: int) -> list[str]:
    """Return the `n` most attended content words in text order; a repeated word counts once, at its best weight."""
    found = [text[s.start : s.end] for s, _ in weighted]
    content = view.carries_content(found)
    best: dict[str, tuple[float, int, str]] = {}
    for i, (word, keep, (_, weight)) in enumerate(zip(found, content, weighted, strict=True)):
        if keep and (word.lower() not in best or weight > best[word.lower()][0]):
            best[word.lower()] = (weight, i, word)
    top = sorted(best.values(), key=lambda entry: (-entry[0], entry[1]))[:n]
    return [word for _, _, word in sorted(top, key=lambda entry: entry[1])]


def _attention_before(
    alone: AloneAttention, word_of: Sequence[int | None], tokens: Sequence[int], count: int
) -> Floats:
    """Return (words,): normalised attention of the rows that predict a word's tokens to the words before it."""
    first = tokens[0]
    mean = alone.weights.mean(axis=0)  # (tokens, tokens)
    rows = [mean[t - 1, :first] for t in tokens if t > 0]
    found = np.zeros(count)
    if not rows or first == 0:
        return found
    average = np.mean([row / row.sum() if row.sum() > 0 else row for row in rows], axis=0)
    for t in range(first):
        w = word_of[t]
        if w is not None:
            found[w] += average[t]
    return found


def _first_letter(text: str, span: Span) -> int:
    piece = text[span.start : span.end]
    return span.start + len(piece) - len(piece.lstrip()) if piece.strip() else span.start
