"""Cutting generated tokens, reflection tokens included, into a segment: its text, its judgements, and its end.

Pure functions of token steps as the engine reports them, with `Signals(tokens=vocabulary.judged)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from langgraph_dynrag.drafts.draft import Draft, EndOfDraft
from langgraph_dynrag.reflection.scores import Critique, Probabilities, normalised
from langgraph_dynrag.reflection.vocabulary import ReflectionVocabulary

if TYPE_CHECKING:
    from rag_backbone.engine.signals import TokenStep


@dataclass(frozen=True)
class Cut:
    """A segment cut out of the model's output."""

    draft: Draft
    """Its visible tokens."""
    token_ids: tuple[int, ...]
    """All of its tokens, reflection tokens included, but without the retrieval token that ends it."""
    critique: Critique


def is_over(step: TokenStep, vocabulary: ReflectionVocabulary) -> bool:
    """Return whether the segment ends before this token, which is so for any retrieval token (section 3.3)."""
    return step.token_id in vocabulary.retrieval.values()


def cut(
    steps: Sequence[TokenStep],
    vocabulary: ReflectionVocabulary,
    ended: EndOfDraft,
    *,
    fresh: bool,
    evidence: bool,
    limit: int | None = None,
) -> Cut:
    """Cut a segment out of generated tokens, and read its judgements.

    Relevance is read at the first position, whatever token was written there. Support and utility are read at the first
    token of their kind; without one, the judgement is missing.

    Args:
        steps: The generated tokens, with the log-probabilities of `vocabulary.judged`.
        vocabulary: The reflection tokens.
        ended: Why the generation ended.
        fresh: Whether the segment follows a new passage, so that its first token judges the passage's relevance.
        evidence: Whether it was written with a passage, new or not, so that it can be supported.
        limit: Maximum number of visible tokens; None: no limit.
    """
    ids = vocabulary.ids
    end = next((t for t, step in enumerate(steps) if is_over(step, vocabulary)), len(steps))
    shown = [t for t, step in enumerate(steps[:end]) if step.token_id not in ids]
    if limit is not None and len(shown) > limit:
        end, ended = shown[limit], "limit"
    elif end < len(steps):
        ended = "unit"
    kept = steps[:end]
    visible = [step for step in kept if step.token_id not in ids]
    entropies = tuple(step.entropy for step in visible if step.entropy is not None)
    draft = Draft(
        tuple(step.text for step in visible),
        tuple(step.logprob for step in visible),
        entropies if len(entropies) == len(visible) else None,
        tuple(step.token_id for step in visible),
        ended,
    )
    critique = Critique(
        relevance=_read(steps[0], vocabulary, vocabulary.relevance) if fresh and steps else None,
        support=_first(kept, vocabulary, vocabulary.support) if evidence else None,
        utility=_first(kept, vocabulary, vocabulary.utility),
    )
    return Cut(draft, tuple(step.token_id for step in kept), critique)


def spaced(before: str, draft: Draft) -> Draft:
    """Prepend a space to the draft if two segments would run together where a reflection token separated them."""
    text = draft.text
    if not before or not text or before[-1].isspace() or text[0].isspace():
        return draft
    first = next(t for t, piece in enumerate(draft.pieces) if piece)
    return replace(draft, pieces=(*draft.pieces[:first], f" {draft.pieces[first]}", *draft.pieces[first + 1 :]))


def _first(
    steps: Sequence[TokenStep], vocabulary: ReflectionVocabulary, group: Mapping[str, int]
) -> Probabilities | None:
    found = next((step for step in steps if step.token_id in group.values()), None)
    return None if found is None else _read(found, vocabulary, group)


def _read(step: TokenStep, vocabulary: ReflectionVocabulary, group: Mapping[str, int]) -> Probabilities:
    reported = dict(zip(vocabulary.judged, step.token_logprobs, strict=True))
    return normalised({name: reported[i] for name, i in group.items()})
