"""How an agent's answers are watched, validated once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from langgraph_dynrag.draft import Signal
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.queries.flare import MaskedSentence
from langgraph_dynrag.queries.rewrite import WithQuestion
from langgraph_dynrag.retriever import Retriever, check_retriever
from langgraph_dynrag.settings import RetrievalPolicy, check_pair
from langgraph_dynrag.triggers.base import Trigger
from langgraph_dynrag.triggers.confidence import TokenProbability
from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text_units import WordFilter, not_a_stop_word

REPORTED: frozenset[Signal] = frozenset({"logprob", "entropy"})
"""What any model may report with a message."""
_LOCAL: frozenset[Signal] = frozenset({"attention", "attention_alone"})


@dataclass(frozen=True)
class WatchOptions:
    """How an agent's answers are watched; see `DynamicRetrievalMiddleware`.

    Raises:
        ConfigurationError: If an option is out of range, or trigger and formulator do not fit.
        SignalUnavailableError: If a trigger or formulator needs what no message can carry.
    """

    retriever: Retriever
    trigger: Trigger = field(default_factory=TokenProbability)
    query: QueryFormulator = field(default_factory=lambda: WithQuestion(MaskedSentence()))
    k: int = 3
    max_rounds: int = 1
    max_searches: int = 6
    max_queries: int = 3
    query_tokens: int = 64
    context_tokens: int = 1024
    with_passages: str = "Use these passages where they help:\n{passages}\n\n{question}"
    retrieval: RetrievalPolicy = field(default_factory=RetrievalPolicy)
    on_missing_signals: Literal["continue", "raise"] = "continue"
    drafts: Literal["hidden", "streamed"] = "hidden"
    top_logprobs: int = 5
    carries_content: WordFilter = field(default_factory=not_a_stop_word)

    def __post_init__(self) -> None:
        check_retriever(self.retriever)
        for name, protocol in (("trigger", Trigger), ("query", QueryFormulator)):
            if not isinstance(getattr(self, name), protocol):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}, which is no {protocol.__name__}")
        for name, least in (("k", 1), ("max_rounds", 1), ("max_searches", 1), ("max_queries", 1), ("query_tokens", 1),
                            ("context_tokens", 16), ("top_logprobs", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; at least {least} is needed")
        if self.on_missing_signals not in ("continue", "raise"):
            raise ConfigurationError(f"on_missing_signals is {self.on_missing_signals!r}; known: 'continue', 'raise'")
        if self.drafts not in ("hidden", "streamed"):
            raise ConfigurationError(f"drafts is {self.drafts!r}; known: 'hidden', 'streamed'")
        for name in ("{passages}", "{question}"):
            if name not in self.with_passages:
                raise ConfigurationError(f"with_passages lacks {name}")
        check_pair(self.trigger, self.query)
        if foreign := self.needs - REPORTED - _LOCAL:
            raise SignalUnavailableError(
                f"{self.trigger} with {self.query} needs {', '.join(sorted(foreign))}, which no message carries; in an "
                "agent use TokenProbability, Entropy, ETC or RIND, which need log-probabilities, entropy or attention"
            )

    @classmethod
    def of(cls, **options: Any) -> WatchOptions:
        """The options, unknown ones refused by name.

        Raises:
            ConfigurationError: As above.
        """
        refuse_unknown(options, {f.name for f in fields(cls)}, "DynamicRetrievalMiddleware")
        return cls(**options)

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that trigger and formulator read."""
        return self.trigger.needs | self.query.needs
