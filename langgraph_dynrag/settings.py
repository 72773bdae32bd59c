"""Everything that a graph is made of, validated once, when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, Protocol, runtime_checkable

from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.generators.protocols import Generator
from langgraph_dynrag.injection.injector import Injector, PromptOnly
from langgraph_dynrag.inputs.condensing import CondenseQuestion, Condenser
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.queries.base import QueryFormulator, check_formulator
from langgraph_dynrag.reflection.base import Reflector, SegmentSelection
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from langgraph_dynrag.seakr.evidence_selection import EvidenceSelector
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.search_tags.exchange import Exchange, NoExchange
from langgraph_dynrag.search_tags.reason_in_documents import ReasonInDocuments
from langgraph_dynrag.state import DynamicRAGContext
from langgraph_dynrag.triggers.base import Trigger, check_trigger
from langgraph_dynrag.triggers.fixed import Never
from langgraph_dynrag.triggers.written_tag import WrittenTag
from rag_backbone.checks import known_arguments
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text.units import WordFilter, not_a_stop_word
from rag_backbone.typed_fields import Bounds, check_fields

ResumeAt = Literal["sentence", "word", "token", "end"]
"""Where writing goes on after a retrieval: at the beginning of the sentence that needed it, at the word or token that
did, or after what was written, of which then nothing is discarded."""

EvidenceLife = Literal["sentence", "replaced", "accumulated"]
"""How long passages stay in the prompt: for the next sentence, until others replace them, or to the end."""


@known_arguments
@dataclass(frozen=True, slots=True)
class Reformulation:
    """What to do when a search was in vain.

    Raises:
        ConfigurationError: If a number is negative or a choice unknown.
    """

    max_rewrites: Annotated[int, Bounds(least=0)] = 0
    """How often the query may be written anew for one need."""
    min_score: float | None = None
    """Passages with a lower score do not count. Retrievers that report no score are not judged by it."""
    repeats: Literal["use", "skip"] = "use"
    """Passages that the prompt had already: write with them again, as the published methods do, or count as nothing."""

    def __post_init__(self) -> None:
        check_fields(self)


@known_arguments
@dataclass(frozen=True, slots=True)
class RetrievalPolicy:
    """How a retriever is called.

    Raises:
        ConfigurationError: If the timeout is not positive or the choice unknown.
    """

    timeout: Annotated[float | None, Bounds(above=0)] = 30.0
    """Seconds for one search; None waits for ever."""
    on_error: Literal["continue", "raise"] = "continue"
    """A search that fails or takes too long: go on without it, recorded in the trace; or fail."""

    def __post_init__(self) -> None:
        check_fields(self)


@runtime_checkable
class Particular(Protocol):
    """A part that does not go with every other one."""

    def check_with(self, settings: Settings) -> None:
        """Refuse settings that it cannot stand in.

        Raises:
            ConfigurationError: Saying what to use instead.
        """
        ...


@dataclass(frozen=True)
class Settings:
    """A method with its model, retriever and prompt. Nodes read it and never change it."""

    generator: Generator
    retriever: Retriever | None
    trigger: Trigger
    query: QueryFormulator
    prompt: AnswerPrompt
    k: Annotated[int, Bounds(least=1)] = 3
    initial_retrieval: bool = False
    """Whether to search with the question before anything is written."""
    resume_at: ResumeAt = "sentence"
    evidence_life: EvidenceLife = "replaced"
    lookahead: Annotated[int, Bounds(least=1)] = 64
    """Tokens of a draft at most."""
    query_tokens: Annotated[int, Bounds(least=1)] = 64
    """Queries keep their last so many tokens."""
    context_tokens: Annotated[int, Bounds(least=16)] = 1024
    """Tokens for the passages."""
    recheck: bool = False
    """Whether a regenerated sentence is looked at by the trigger again; the published methods accept it."""
    budgets: Budgets = field(default_factory=Budgets)
    reformulation: Reformulation = field(default_factory=Reformulation)
    retrieval: RetrievalPolicy = field(default_factory=RetrievalPolicy)
    carries_content: WordFilter = field(default_factory=not_a_stop_word)
    seed: int | None = None
    """For models that sample; each draft's seed is derived from it, so that a resumed run samples the same."""

    injector: Injector | None = None
    """Puts evidence into the model's parameters; None: all of it stands in the prompt."""
    selection: SegmentSelection | None = None
    """Writes one continuation for each passage and keeps the best ones; None: one draft with all passages."""
    reflector: Reflector | None = None
    """What writes and judges them; made of `selection` and the model."""

    evidence_selector: EvidenceSelector | None = None
    """Chooses among the passages found; None: all of them are used."""

    final_answer: SurerAnswer | None = None
    """Has the answer compared with another one at the end; None: it is what was written."""

    digest: ReasonInDocuments | None = None
    """Has what a search found condensed before it is inserted into the answer; None: it is inserted as it is."""

    condense: Condenser | None = field(default_factory=CondenseQuestion)
    """Makes a question that comes in `messages` with earlier turns stand alone; None: it is taken as it is."""

    def __post_init__(self) -> None:
        if self.retriever is not None:
            check_retriever(self.retriever)
        check_fields(self)
        check_trigger(self.trigger)
        check_formulator(self.query)
        if self.retriever is None and (self.initial_retrieval or not isinstance(self.trigger, Never)):
            raise ConfigurationError("no retriever was given, and this method retrieves; pass retriever=...")
        for part in (self.query, self.exchange, self.trigger, self.selection, self.final_answer, self.digest):
            if isinstance(part, Particular):
                part.check_with(self)
        # Asking a local model for its signals loads it, so it is only asked if something is needed.
        if self.needs and (missing := self.needs - self.generator.signals):
            raise SignalUnavailableError(
                f"{self.trigger} with {self.query} needs {', '.join(sorted(missing))}; {self.generator!r} gives "
                f"{', '.join(sorted(self.generator.signals)) or 'none'}"
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that trigger, query formulator, selector and the choice of the final answer read."""
        parts = (self.trigger, self.query, self.evidence_selector, self.final_answer)
        return frozenset().union(*(part.needs for part in parts if part is not None))

    @property
    def placing(self) -> Injector:
        """What puts evidence in its place."""
        return PromptOnly() if self.injector is None else self.injector

    @property
    def exchange(self) -> NoExchange:
        """What answers searches that the model writes."""
        return Exchange(self.trigger.tag_format) if isinstance(self.trigger, WrittenTag) else NoExchange()

    def with_system(self, system: str) -> Settings:
        """These settings with a user's own system text in the prompt."""
        return replace(self, prompt=self.prompt.with_system(system)) if system else self

    def overridden(self, context: DynamicRAGContext) -> Settings:
        """These settings with a run's own on top, validated again."""
        given = {f.name: getattr(context, f.name) for f in fields(context)}
        changed = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changed) if changed else self
