"""The options of `DynamicRetrievalMiddleware`, validated once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.queries.flare import MaskedSentence
from langgraph_dynrag.queries.qfs import QFS
from langgraph_dynrag.queries.rewrite import WithQuestion
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from langgraph_dynrag.settings import RetrievalPolicy
from langgraph_dynrag.triggers.base import Trigger, check_needs, check_trigger
from langgraph_dynrag.triggers.confidence import TokenProbability
from langgraph_dynrag.triggers.learned import LearnedTrigger
from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text.units import WordFilter, not_a_stop_word
from rag_backbone.typed_fields import Bounds, check_fields

REPORTED: frozenset[Signal] = frozenset({"logprob", "entropy"})
"""Signals that any model may report with a message."""
_LOCAL: frozenset[Signal] = frozenset({"attention", "attention_alone"})


@dataclass(frozen=True)
class WatchOptions:
    """Options for watching an agent's answers; see `DynamicRetrievalMiddleware`.

    Raises:
        ConfigurationError: If an option is out of range, or trigger and query formulator do not fit together.
        SignalUnavailableError: If the trigger or the formulator needs a signal that no message can carry.
    """

    retriever: Retriever
    trigger: Trigger = field(default_factory=TokenProbability)
    query: QueryFormulator = field(default_factory=lambda: WithQuestion(MaskedSentence()))
    k: Annotated[int, Bounds(least=1)] = 3
    max_rounds: Annotated[int, Bounds(least=1)] = 1
    max_searches: Annotated[int, Bounds(least=1)] = 6
    max_queries: Annotated[int, Bounds(least=1)] = 3
    query_tokens: Annotated[int, Bounds(least=1)] = 64
    context_tokens: Annotated[int, Bounds(least=16)] = 1024
    with_passages: str = "Use these passages where they help:\n{passages}\n\n{question}"
    retrieval: RetrievalPolicy = field(default_factory=RetrievalPolicy)
    on_missing_signals: Literal["continue", "raise"] = "continue"
    drafts: Literal["hidden", "streamed"] = "hidden"
    top_logprobs: Annotated[int, Bounds(least=1)] = 5
    carries_content: WordFilter = field(default_factory=not_a_stop_word)

    def __post_init__(self) -> None:
        check_retriever(self.retriever)
        check_fields(self)
        check_trigger(self.trigger)
        check_needs(self.query)
        for name in ("{passages}", "{question}"):
            if name not in self.with_passages:
                raise ConfigurationError(f"with_passages lacks {name}")
        if isinstance(self.query, QFS):
            self.query.check_with(self)
        if isinstance(self.trigger, LearnedTrigger):
            self.trigger.check_with(self)
            if self.trigger.abstain is not None:
                raise ConfigurationError(
                    f"the learned trigger's abstain is {self.trigger.abstain:g}, but an agent's answer is "
                    "not given up; leave it out here, or use create_dynamic_rag"
                )
        if foreign := self.needs - REPORTED - _LOCAL:
            raise SignalUnavailableError(
                f"{self.trigger} with {self.query} needs {', '.join(sorted(foreign))}, which no message carries; in an "
                "agent use TokenProbability, Entropy, ETC or RIND, which need log-probabilities, entropy or attention"
            )

    @classmethod
    def of(cls, **options: Any) -> WatchOptions:
        """Build the options; the error for an unknown option names it.

        Raises:
            ConfigurationError: If an option is unknown, and as for the class.
        """
        refuse_unknown(options, {f.name for f in fields(cls)}, "DynamicRetrievalMiddleware")
        return cls(**options)

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the trigger and the query formulator read."""
        return self.trigger.needs | self.query.needs
