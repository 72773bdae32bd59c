"""Features of a drafted sentence that a learned trigger weighs: pure functions of the draft's view.

All of them are free: they read what a trace records anyway, and what the index knows about words without a search. The
margin to the runner-up and hidden states would add little (docs/results-triggers.md). A feature that has no value in a
sentence, such as the frequency of names where there are none, is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from langgraph_dynrag.drafts.draft import Draft, DraftView, Signal
from rag_backbone.checks import suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.names import names_and_numbers, vocabulary, word_key
from rag_backbone.text.units import sentences


class _Sentence:
    """The judged tokens of a view, with what several features read."""

    def __init__(self, view: DraftView) -> None:
        self.view = view
        self.unit: Draft = view.unit

    @cached_property
    def content(self) -> list[int]:
        """Tokens of content words."""
        return [t for t in range(len(self.unit)) if self.view.token_carries_content(t)]

    @cached_property
    def name_spans(self) -> list[tuple[int, int]]:
        return [(s.start, s.end) for s in names_and_numbers(self.unit.text)]

    @cached_property
    def names(self) -> list[str]:
        return self.texts(self.name_spans)

    @cached_property
    def new_spans(self) -> list[tuple[int, int]]:
        """Names and numbers that occur neither in the question nor in the answer so far."""
        known = vocabulary(f"{self.view.question} {self.view.accepted}")
        return [s for s, name in zip(self.name_spans, self.names, strict=True) if word_key(name) not in known]

    def texts(self, spans: Iterable[tuple[int, int]]) -> list[str]:
        return [self.unit.text[start:end] for start, end in spans]

    def tokens_in(self, spans: Sequence[tuple[int, int]]) -> list[int]:
        """Tokens that contain part of one of the spans."""
        return [
            t for t, s in enumerate(self.unit.spans) if any(s.start < end and start < s.end for start, end in spans)
        ]

    def least_logprob(self, spans: Sequence[tuple[int, int]]) -> float | None:
        return min((self.unit.logprobs[t] for t in self.tokens_in(spans)), default=None)

    @cached_property
    def by_probability(self) -> list[int]:
        """Tokens, the least probable one first."""
        return sorted(range(len(self.unit)), key=lambda t: self.unit.logprobs[t])

    def entropies_of(self, tokens: Iterable[int]) -> list[float]:
        known = self.unit.entropies
        return [] if known is None else [known[t] for t in tokens]


@dataclass(frozen=True, slots=True)
class Feature:
    """A number that describes a drafted sentence."""

    meaning: str
    read: Callable[[_Sentence], float | None]
    needs: frozenset[Signal] = frozenset({"logprob"})
    """Signals of the model that it reads."""
    index: bool = False
    """Whether the retriever has to know how many documents contain a word (`document_frequency`)."""


_ENTROPY: frozenset[Signal] = frozenset({"entropy"})
_NONE: frozenset[Signal] = frozenset()

FEATURES: Mapping[str, Feature] = {
    "least_logprob": Feature("log-probability of the least probable token", lambda s: _logprob(s, 0)),
    "second_logprob": Feature("log-probability of the second-least probable token", lambda s: _logprob(s, 1)),
    "least_in_content": Feature(
        "whether the least probable token is part of a content word", lambda s: _least_in(s, s.content)
    ),
    "least_in_name": Feature(
        "whether the least probable token is part of a name or number",
        lambda s: _least_in(s, s.tokens_in(s.name_spans)),
    ),
    "least_name_logprob": Feature(
        "log-probability of the least probable token of a name or number",
        lambda s: s.least_logprob(s.name_spans),
    ),
    "least_new_name_logprob": Feature(
        "the same among names and numbers that occur neither in the question nor in the answer so far; 0 without any",
        lambda s: s.least_logprob(s.new_spans) or 0.0,
    ),
    "greatest_entropy": Feature(
        "greatest entropy of a content word's token, in nats; its lower bound where a server reports alternatives only",
        lambda s: max(s.entropies_of(s.content), default=None),
        _ENTROPY,
    ),
    "mean_entropy": Feature(
        "mean entropy of the tokens, in nats; its lower bound where a server reports alternatives only",
        lambda s: _mean(s.entropies_of(range(len(s.unit)))),
        _ENTROPY,
    ),
    "sentence_number": Feature(
        "number of sentences before this one",
        lambda s: float(len(sentences(s.view.accepted)) if s.view.accepted.strip() else 0),
        _NONE,
    ),
    "content_words": Feature("number of content words", lambda s: float(_content_words(s)), _NONE),
    "names": Feature("number of names and numbers", lambda s: float(len(s.names)), _NONE),
    "new_names": Feature(
        "number of names and numbers that occur neither in the question nor in the answer so far",
        lambda s: float(len(s.new_spans)),
        _NONE,
    ),
    "evidence_in_prompt": Feature("whether passages were in the prompt", lambda s: float(bool(s.view.passages)), _NONE),
    "names_in_evidence": Feature(
        "share of the names and numbers that occur in these passages",
        lambda s: _names_in_evidence(s),  # noqa: PLW0108 - defined below
        _NONE,
    ),
    "rarest_new_name": Feature(
        "ln(1 + number of documents) that contain the rarest of the new names and numbers",
        lambda s: _rarest_new_name(s),  # noqa: PLW0108 - defined below
        _NONE,
        index=True,
    ),
}
"""Name to feature."""


def features_of(view: DraftView, names: Sequence[str]) -> tuple[float | None, ...]:
    """Return the named features of the judged tokens of a view, which must not be empty; None: it has no value here."""
    sentence = _Sentence(view)
    return tuple(FEATURES[name].read(sentence) for name in names)


def new_name_tokens(view: DraftView) -> list[int]:
    """Return the judged tokens of names and numbers that occur neither in the question nor in the answer so far."""
    sentence = _Sentence(view)
    return sentence.tokens_in(sentence.new_spans)


def check_names(names: Sequence[str]) -> None:
    """Refuse names of features that do not exist or are repeated, or none at all.

    Raises:
        ConfigurationError: Naming them, and the known ones.
    """
    known = ", ".join(FEATURES)
    if not names:
        raise ConfigurationError(f"no features are named; known: {known}")
    for name in names:
        if name not in FEATURES:
            raise ConfigurationError(
                f"there is no feature {name!r}{suggestion(str(name), tuple(FEATURES))}; known: {known}"
            )
    if len(set(names)) < len(names):
        raise ConfigurationError(f"features are named twice: {', '.join(names)}")


def signals_of(names: Iterable[str]) -> frozenset[Signal]:
    """Return the signals that the named features read."""
    return frozenset().union(*(FEATURES[name].needs for name in names))


def _logprob(s: _Sentence, rank: int) -> float | None:
    return s.unit.logprobs[s.by_probability[rank]] if len(s.unit) > rank else None


def _least_in(s: _Sentence, tokens: Sequence[int]) -> float:
    return float(s.by_probability[0] in tokens)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _content_words(s: _Sentence) -> int:
    return len({s.view.draft.word_of_token[t] for t in s.content})


def _names_in_evidence(s: _Sentence) -> float | None:
    if not s.view.passages or not s.names:
        return None
    told = vocabulary(" ".join(s.view.evidence))
    return sum(word_key(name) in told for name in s.names) / len(s.names)


def _rarest_new_name(s: _Sentence) -> float | None:
    assert s.view.document_frequency is not None  # checked when the settings were built
    known = [count for name in s.texts(s.new_spans) if (count := s.view.document_frequency(name)) is not None]
    return math.log1p(min(known)) if known else None
