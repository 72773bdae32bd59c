"""What a trigger and a query formulator look at: a draft, its tokens' signals, and what came before it.

Pure data with NumPy arrays; no framework, no model. Everything that is kept in the graph's state is plain; the
attention rows are not, and are recomputed when they are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from langgraph_dynrag.drafts.sampled_ends import SampleEnds
from rag_backbone.text.units import (
    Span,
    WordFilter,
    first_sentence_end,
    not_a_stop_word,
    sentences,
    token_spans,
    tokens_of_word,
    words,
    words_of_tokens,
)
from rag_backbone.typed_fields import check_fields

Floats = NDArray[np.floating[Any]]
Signal = Literal["logprob", "entropy", "attention", "attention_alone", "end_states"]
"""What triggers and formulators may need. `attention_alone` is attention from a separate forward over given text
alone, which published code uses; `end_states` are hidden states at the ends of sampled continuations; the others come
from the one decoding pass."""

EndOfDraft = Literal["unit", "end", "limit", "deadline"]
"""Why a draft ends: the unit was complete, the model ended its answer, no more tokens or no more time was allowed."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The piece of text after which the monitor looks at the draft."""

    kind: Literal["sentence", "tokens", "until", "all"]
    tokens: int = 0
    until: str = ""
    """The string that the unit ends with."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return {"tokens": f"{self.tokens} tokens", "until": repr(self.until)}.get(self.kind, self.kind)

    def length(self, draft: Draft) -> int | None:
        """How many of the draft's tokens the first complete unit has; None while it is incomplete."""
        if self.kind == "tokens":
            return self.tokens if len(draft) >= self.tokens else None
        if self.kind == "all":
            return None
        if self.kind == "until":
            at = draft.text.find(self.until)
            return None if at < 0 else draft.tokens_until(at + len(self.until))
        end = first_sentence_end(draft.text)
        if end is None and draft.ended != "unit":  # no more text will come to make it certain
            spans = sentences(draft.text)
            end = spans[0].end if len(spans) > 1 else None
        # The space after a sentence belongs to the next one's first token.
        return None if end is None else draft.tokens_until(len(draft.text[:end].rstrip()))


class DraftState(TypedDict):
    """A draft as plain lists."""

    pieces: list[str]
    logprobs: list[float]
    entropies: list[float] | None
    token_ids: list[int] | None
    ended: EndOfDraft


@dataclass(frozen=True)
class Draft:
    """Text that was generated and not yet accepted, token by token."""

    pieces: tuple[str, ...] = ()
    """The characters that each token completes; joined they are the text."""
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] | None = None
    """In nats; None if they were not asked for."""
    token_ids: tuple[int, ...] | None = None
    """None if the model does not tell."""
    ended: EndOfDraft = "unit"

    @cached_property
    def text(self) -> str:
        """The draft's text."""
        return "".join(self.pieces)

    @cached_property
    def spans(self) -> list[Span]:
        """Each token's characters in the text."""
        return token_spans(self.pieces)

    @cached_property
    def word_spans(self) -> list[Span]:
        """Each word's characters in the text."""
        return words(self.text)

    @cached_property
    def words(self) -> list[str]:
        """The words of the text."""
        return [self.text[s.start : s.end] for s in self.word_spans]

    @cached_property
    def word_of_token(self) -> list[int | None]:
        """The word that each token belongs to; None for punctuation."""
        return words_of_tokens(self.spans, self.word_spans)

    def tokens_of_word(self, word: int) -> list[int]:
        """The tokens that a word consists of."""
        return tokens_of_word(word, self.spans, self.word_spans)

    def tokens_until(self, end: int) -> int:
        """How many tokens begin before character `end`."""
        return sum(1 for span in self.spans if span.start < end)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, part: slice) -> Draft:
        return replace(
            self,
            pieces=self.pieces[part],
            logprobs=self.logprobs[part],
            entropies=None if self.entropies is None else self.entropies[part],
            token_ids=None if self.token_ids is None else self.token_ids[part],
        )

    def __add__(self, other: Draft) -> Draft:
        """This draft continued by another one; how it ended is how the other one did."""
        if not self.pieces:
            return other
        both = self.entropies is not None and other.entropies is not None
        ids = self.token_ids is not None and other.token_ids is not None
        return Draft(
            self.pieces + other.pieces,
            self.logprobs + other.logprobs,
            (self.entropies or ()) + (other.entropies or ()) if both else None,
            (self.token_ids or ()) + (other.token_ids or ()) if ids else None,
            other.ended,
        )

    def to_state(self) -> DraftState:
        """Plain lists, as kept in the graph's state."""
        return {
            "pieces": list(self.pieces),
            "logprobs": list(self.logprobs),
            "entropies": None if self.entropies is None else list(self.entropies),
            "token_ids": None if self.token_ids is None else list(self.token_ids),
            "ended": self.ended,
        }

    @classmethod
    def from_state(cls, value: DraftState | None) -> Draft:
        """The draft of a state; an empty one if there is none."""
        if not value:
            return cls()
        return cls(
            tuple(value["pieces"]),
            tuple(value["logprobs"]),
            None if value["entropies"] is None else tuple(value["entropies"]),
            None if value["token_ids"] is None else tuple(value["token_ids"]),
            value["ended"],
        )


@dataclass(frozen=True, eq=False, repr=False)
class AttentionRows:
    """Last-layer attention of the draft's tokens, as recorded while decoding.

    Position `start` is the draft's first token; positions before it are the prompt. Row `t` is the query that
    predicts draft token `t` (position `start + t - 1`); there is one row more than tokens, the last being that
    of the last token itself.
    """

    start: int
    mean: tuple[Floats, ...]
    """Row `t`: (start + t,), averaged over the heads, over all earlier positions and the query's own."""
    heads: tuple[Floats, ...]
    """Row `t`: (heads, t), the part of each head's row that falls on the draft."""

    def within(self, tokens: int) -> Floats:
        """(heads, tokens, tokens): attention of draft token `q` to draft token `k`; zero for `k > q`."""
        block = np.zeros((self.heads[0].shape[0], tokens, tokens), np.float32)
        for q in range(tokens):
            block[:, q, : q + 1] = self.heads[q + 1][:, : q + 1]
        return block

    def of_token(self, token: int) -> Floats:
        """(start + token + 1,): the head-averaged row of draft token `token` itself."""
        return self.mean[token + 1]

    def shifted(self, tokens: int) -> AttentionRows:
        """The rows once the first `tokens` of the draft belong to the prompt."""
        return AttentionRows(
            self.start + tokens, self.mean[tokens:], tuple(row[:, tokens:] for row in self.heads[tokens:])
        )

    def continued(self, mean: Sequence[Floats], heads: Sequence[Floats]) -> AttentionRows:
        """These rows followed by those of a generation that went on after the draft's known tokens.

        Its first row is that of the last known token, which these rows may have as well; its head rows must
        already cover the columns from `start`.
        """
        known = heads[0].shape[1]
        return AttentionRows(self.start, (*self.mean[:known], *mean), (*self.heads[:known], *heads))

    def __repr__(self) -> str:
        return f"AttentionRows(start={self.start}, tokens={len(self.mean) - 1})"


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens of the prompt that a query may be made of: the question's and the accepted answer's."""

    question: tuple[str, ...]
    """The pieces of the question; joined they are its text."""
    question_positions: tuple[int, ...]
    """Their positions in the prompt."""
    answer: tuple[str, ...]
    """The pieces of the accepted text, which ends where the draft begins."""


@dataclass(frozen=True, slots=True)
class AloneAttention:
    """Attention from a forward over a text alone."""

    pieces: tuple[str, ...]
    weights: Floats
    """(heads, tokens, tokens)."""


AttendAlone = Callable[[str, Sequence[int] | None], AloneAttention]
"""Text, and its token ids if they are known, to its attention."""


@dataclass(frozen=True)
class DraftView:
    """Everything that a decision may rest on."""

    question: str
    accepted: str
    """The answer so far."""
    draft: Draft
    judged: int
    """How many of the draft's tokens are judged now: the first unit. Later ones are only a look ahead."""
    history: tuple[float, ...] = ()
    """Entropies of the accepted text's content tokens."""
    attention: AttentionRows | None = None
    context: Context | None = None
    attend_alone: AttendAlone | None = None
    sample_ends: SampleEnds | None = None
    retrieval: Mapping[str, float] | None = None
    """Whether the model itself says that it needs a passage next: `yes`, `no`, `continue`; None if it was not asked."""
    carries_content: WordFilter = field(default_factory=not_a_stop_word)

    @property
    def unit(self) -> Draft:
        """The tokens under judgement."""
        return self.draft[: self.judged]

    @cached_property
    def content(self) -> list[bool]:
        """Whether each of the draft's words carries content (not a stop word)."""
        return list(self.carries_content(self.draft.words))

    def token_carries_content(self, token: int) -> bool:
        """Whether a token is part of a content word. Punctuation is not."""
        word = self.draft.word_of_token[token]
        return word is not None and self.content[word]

    @property
    def last_sentence(self) -> str:
        """The last sentence of accepted text and judged tokens together, stripped."""
        text = self.accepted + self.unit.text
        spans = sentences(text)
        return text[spans[-1].start : spans[-1].end].strip() if spans else ""


class VerdictState(TypedDict):
    """A verdict as plain data."""

    trigger: str
    retrieve: bool
    reason: str
    scores: list[float | None]
    score: float | None
    threshold: float | None
    position: int | None
    hits: list[int]
    cost: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A trigger's decision."""

    retrieve: bool
    reason: str
    scores: tuple[float | None, ...] = ()
    """One per judged token; None where the trigger gives none."""
    score: float | None = None
    """The one that decided."""
    threshold: float | None = None
    position: int | None = None
    """The token at which information is needed; None: after the judged tokens, which then stay."""
    hits: tuple[int, ...] = ()
    """All tokens beyond the threshold."""
    trigger: str = ""
    cost: Mapping[str, float] | None = None
    """What judging took beyond the draft, if anything: sequences, tokens, seconds."""

    def to_state(self) -> VerdictState:
        """Plain data, as kept in state and trace."""
        return {
            "trigger": self.trigger,
            "retrieve": self.retrieve,
            "reason": self.reason,
            "scores": list(self.scores),
            "score": self.score,
            "threshold": self.threshold,
            "position": self.position,
            "hits": list(self.hits),
            "cost": None if self.cost is None else dict(self.cost),
        }

    @classmethod
    def from_state(cls, value: VerdictState) -> Verdict:
        """The verdict that `to_state` wrote."""
        fields: dict[str, Any] = {**value, "scores": tuple(value["scores"]), "hits": tuple(value["hits"])}
        return cls(**fields)
