"""The input of triggers and query formulators: a draft, its per-token signals, and the text before it.

Pure data with NumPy arrays; no framework, no model. Everything kept in the graph's state is plain data, except for
attention rows, which are recomputed when they are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from langgraph_dynrag.drafts.sampled_ends import SampleEnds
from langgraph_dynrag.evidence import Passage
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
Signal = Literal["logprob", "entropy", "attention", "attention_alone", "end_states", "hidden_states"]
"""A signal that a trigger or query formulator may need. `attention_alone` is attention from a separate forward pass
over a given text only, as published code uses it; `end_states` are hidden states at the ends of sampled continuations;
`hidden_states` are those of the draft itself, read once more in one pass; the others are recorded during decoding."""
MODEL_STATES: frozenset[Signal] = frozenset({"attention", "attention_alone", "end_states", "hidden_states"})
"""The signals that come from inside a forward pass, and not from its distribution over the next token."""

EndOfDraft = Literal["unit", "end", "limit", "deadline"]
"""Why a draft ended: its unit was complete, the model ended its answer, or a token limit or deadline was reached."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The piece of text that the monitor judges at a time.

    `kind` is a sentence, a number of `tokens`, the text up to the string `until`, or the whole draft (`all`). The last
    unit of a draft may be shorter.
    """

    kind: Literal["sentence", "tokens", "until", "all"]
    tokens: int = 0
    until: str = ""
    """String that ends the unit, for `kind="until"`."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return {"tokens": f"{self.tokens} tokens", "until": repr(self.until)}.get(self.kind, self.kind)

    def length(self, draft: Draft) -> int | None:
        """Return the number of draft tokens in the first complete unit, or None while it is incomplete."""
        if self.kind == "tokens":
            return self.tokens if len(draft) >= self.tokens else None
        if self.kind == "all":
            return None
        if self.kind == "until":
            at = draft.text.find(self.until)
            return None if at < 0 else draft.tokens_until(at + len(self.until))
        end = first_sentence_end(draft.text)
        if end is None and draft.ended != "unit":  # no further text will settle where the sentence ends
            spans = sentences(draft.text)
            end = spans[0].end if len(spans) > 1 else None
        # The space after a sentence belongs to the next one's first token.
        return None if end is None else draft.tokens_until(len(draft.text[:end].rstrip()))


class DraftState(TypedDict):
    """A `Draft` as plain lists."""

    pieces: list[str]
    logprobs: list[float]
    entropies: list[float] | None
    token_ids: list[int] | None
    ended: EndOfDraft


@dataclass(frozen=True)
class Draft:
    """Generated text that is not accepted yet, token by token."""

    pieces: tuple[str, ...] = ()
    """Characters that each token completes; joined, they are the text."""
    logprobs: tuple[float, ...] = ()
    entropies: tuple[float, ...] | None = None
    """Entropy of each token in nats; None if not requested."""
    token_ids: tuple[int, ...] | None = None
    """None if the model does not report them."""
    ended: EndOfDraft = "unit"

    @cached_property
    def text(self) -> str:
        """Text of the draft."""
        return "".join(self.pieces)

    @cached_property
    def spans(self) -> list[Span]:
        """Character span of each token in the text."""
        return token_spans(self.pieces)

    @cached_property
    def word_spans(self) -> list[Span]:
        """Character span of each word in the text."""
        return words(self.text)

    @cached_property
    def words(self) -> list[str]:
        """Words of the text."""
        return [self.text[s.start : s.end] for s in self.word_spans]

    @cached_property
    def word_of_token(self) -> list[int | None]:
        """Index of the word that each token belongs to; None for punctuation."""
        return words_of_tokens(self.spans, self.word_spans)

    def tokens_of_word(self, word: int) -> list[int]:
        """Return the indices of the tokens that make up a word."""
        return tokens_of_word(word, self.spans, self.word_spans)

    def tokens_until(self, end: int) -> int:
        """Return how many tokens begin before character `end`."""
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
        """Append another draft to this one; `ended` is taken from the other."""
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
        """Convert to plain lists for the graph's state."""
        return {
            "pieces": list(self.pieces),
            "logprobs": list(self.logprobs),
            "entropies": None if self.entropies is None else list(self.entropies),
            "token_ids": None if self.token_ids is None else list(self.token_ids),
            "ended": self.ended,
        }

    @classmethod
    def from_state(cls, value: DraftState | None) -> Draft:
        """Restore a draft from the graph's state; None gives an empty draft."""
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

    Position `start` is the draft's first token; positions before it are the prompt. Row `t` belongs to the query that
    predicts draft token `t` (position `start + t - 1`). There is one more row than there are tokens; the last one
    belongs to the last token itself.
    """

    start: int
    mean: tuple[Floats, ...]
    """Row `t`: (start + t,), averaged over the heads; covers all earlier positions and the query's own."""
    heads: tuple[Floats, ...]
    """Row `t`: (heads, t), the part of each head's row that covers the draft."""

    def within(self, tokens: int) -> Floats:
        """Return (heads, tokens, tokens): attention of draft token `q` to draft token `k`; zero for `k > q`."""
        block = np.zeros((self.heads[0].shape[0], tokens, tokens), np.float32)
        for q in range(tokens):
            block[:, q, : q + 1] = self.heads[q + 1][:, : q + 1]
        return block

    def of_token(self, token: int) -> Floats:
        """Return (start + token + 1,): the head-averaged row of draft token `token` itself."""
        return self.mean[token + 1]

    def shifted(self, tokens: int) -> AttentionRows:
        """Return the rows with the first `tokens` draft tokens counted as part of the prompt."""
        return AttentionRows(
            self.start + tokens, self.mean[tokens:], tuple(row[:, tokens:] for row in self.heads[tokens:])
        )

    def continued(self, mean: Sequence[Floats], heads: Sequence[Floats]) -> AttentionRows:
        """Append the rows of a generation that continued after the draft's known tokens.

        The first new row is that of the last known token, which these rows may contain as well. The new head rows must
        already cover the columns from `start`.
        """
        known = heads[0].shape[1]
        return AttentionRows(self.start, (*self.mean[:known], *mean), (*self.heads[:known], *heads))

    def __repr__(self) -> str:
        return f"AttentionRows(start={self.start}, tokens={len(self.mean) - 1})"


@dataclass(frozen=True, slots=True)
class Context:
    """Prompt tokens that a query may be built from: those of the question and of the accepted answer."""

    question: tuple[str, ...]
    """Token texts of the question; joined, they are the question."""
    question_positions: tuple[int, ...]
    """Positions of these tokens in the prompt."""
    answer: tuple[str, ...]
    """Token texts of the accepted text, which ends where the draft begins."""


@dataclass(frozen=True, slots=True)
class AloneAttention:
    """Attention from a forward pass over a text without its context."""

    pieces: tuple[str, ...]
    weights: Floats
    """(heads, tokens, tokens)."""


AttendAlone = Callable[[str, Sequence[int] | None], AloneAttention]
"""Computes the attention over a text, given the text and its token ids if known."""

ReadStates = Callable[[tuple[float, ...]], Floats]
"""Reads the judged tokens in one forward pass, given depths from above 0 to 1 (after the last layer), and returns the
hidden states after these shares of the layers: (depths, width), averaged over the positions that predict the tokens."""

DocumentFrequency = Callable[[str], int | None]
"""Counts the documents that contain a word; None for a word that the index does not hold."""


@dataclass(frozen=True)
class DraftView:
    """Everything that triggers and query formulators can base a decision on.

    A signal that the model does not report is None. A trigger that names it in `needs` is refused when the graph is
    built, so `judge` need not check for it.
    """

    question: str
    accepted: str
    """Answer so far."""
    draft: Draft
    judged: int
    """Number of draft tokens judged now: the first unit. Later tokens are only a look-ahead."""
    history: tuple[float, ...] = ()
    """Entropies of the content tokens in the accepted text, in nats."""
    attention: AttentionRows | None = None
    context: Context | None = None
    attend_alone: AttendAlone | None = None
    sample_ends: SampleEnds | None = None
    read_states: ReadStates | None = None
    retrieval: Mapping[str, float] | None = None
    """The model's own statement whether it needs a passage next: `yes`, `no`, `continue`; None if it was not asked."""
    rounds: int = 0
    """Number of retrievals so far in this run, the initial one included. Another query for the same gap is not one."""
    carries_content: WordFilter = field(default_factory=not_a_stop_word)
    passages: Sequence[Passage] = ()
    """Passages that the draft was written with."""
    document_frequency: DocumentFrequency | None = None
    """Given if the retriever knows it."""

    @property
    def unit(self) -> Draft:
        """Tokens being judged."""
        return self.draft[: self.judged]

    @cached_property
    def evidence(self) -> tuple[str, ...]:
        """Texts of the passages, each after its title."""
        return tuple(f"{p['title']}. {p['text']}" for p in self.passages)

    @cached_property
    def content(self) -> list[bool]:
        """Whether each word of the draft is a content word (not a stop word)."""
        return list(self.carries_content(self.draft.words))

    def token_carries_content(self, token: int) -> bool:
        """Return whether a token is part of a content word; punctuation is not."""
        word = self.draft.word_of_token[token]
        return word is not None and self.content[word]

    @property
    def last_sentence(self) -> str:
        """Last sentence of the accepted text and the judged tokens together, stripped."""
        text = self.accepted + self.unit.text
        spans = sentences(text)
        return text[spans[-1].start : spans[-1].end].strip() if spans else ""


class VerdictState(TypedDict):
    """A `Verdict` as plain data."""

    trigger: str
    retrieve: bool
    reason: str
    scores: list[float | None]
    score: float | None
    threshold: float | None
    position: int | None
    hits: list[int]
    cost: dict[str, float] | None
    k: NotRequired[int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decision of a trigger: whether to retrieve, and why.

    `reason` is a phrase for the trace, such as "RIND 0.033 > 0.005". With `position`, the text from that token on is
    discarded and written again with the passages found.
    """

    retrieve: bool
    reason: str
    scores: tuple[float | None, ...] = ()
    """One score per judged token; None for tokens that the trigger does not score."""
    score: float | None = None
    """Score that decided."""
    threshold: float | None = None
    position: int | None = None
    """Index of the token at which information is needed; None if it is needed after the judged tokens, which are then
    kept."""
    hits: tuple[int, ...] = ()
    """Indices of all tokens beyond the threshold."""
    trigger: str = ""
    cost: Mapping[str, float] | None = None
    """Cost of judging beyond the draft itself, if any: sequences, tokens, seconds."""
    ends: bool = False
    """Whether nothing is written after the judged tokens. It takes effect at once, and only if nothing is retrieved, so
    states and traces do not hold it."""
    k: int | None = None
    """Number of passages per search; None: that of the settings."""
    answer: str | None = None
    """A short answer that ends the run in place of the judged tokens, such as "I do not know."; only if nothing is
    retrieved, and like `ends` in no state."""

    def to_state(self) -> VerdictState:
        """Convert to plain data for the state and the trace."""
        state: VerdictState = {
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
        return state if self.k is None else {**state, "k": self.k}

    @classmethod
    def from_state(cls, value: VerdictState) -> Verdict:
        """Restore a verdict from the result of `to_state`."""
        fields: dict[str, Any] = {**value, "scores": tuple(value["scores"]), "hits": tuple(value["hits"])}
        return cls(**fields)
