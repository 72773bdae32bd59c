"""Everything that a graph is built from, validated once, when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, Protocol, runtime_checkable

from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.events.parts import Complexity
from langgraph_dynrag.generators.protocols import Generator
from langgraph_dynrag.injection.injector import Injector, PromptOnly
from langgraph_dynrag.inputs.complexity import AskComplexity, Classifier
from langgraph_dynrag.inputs.condensing import CondenseQuestion, Condenser
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.queries.simple import Question
from langgraph_dynrag.reader import Reader
from langgraph_dynrag.reflection.base import Reflector, SegmentSelection
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from langgraph_dynrag.seakr.evidence_selection import EvidenceSelector
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.search_tags.formats import TagFormat
from langgraph_dynrag.search_tags.reason_in_documents import ReasonInDocuments
from langgraph_dynrag.state import DynamicRAGContext
from langgraph_dynrag.triggers.base import Trigger, check_needs, check_trigger
from langgraph_dynrag.triggers.fixed import Never, Once
from langgraph_dynrag.triggers.written_tag import WrittenTag
from rag_backbone.checks import known_arguments
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.text.units import WordFilter, not_a_stop_word
from rag_backbone.typed_fields import Bounds, check_fields

ResumeAt = Literal["sentence", "word", "token", "end"]
"""Where writing resumes after a retrieval: at the start of the sentence that triggered it, at the word or token that
did, or at the end of the draft, of which nothing is then discarded."""

EvidenceLife = Literal["sentence", "replaced", "accumulated"]
"""How long passages stay in the prompt: for the next sentence, until others replace them, or until the end."""


@known_arguments
@dataclass(frozen=True, slots=True)
class Reformulation:
    """What to do when a search finds nothing useful.

    Raises:
        ConfigurationError: If a number is negative or a choice unknown.
    """

    max_rewrites: Annotated[int, Bounds(least=0)] = 0
    """How often the query may be rewritten for one retrieval."""
    min_score: float | None = None
    """Passages with a lower score are ignored. It does not apply to retrievers that report no scores."""
    repeats: Literal["use", "skip"] = "use"
    """Passages that the prompt already has: use them again, as the published methods do, or ignore them."""

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
    """Seconds for one search; None for no limit."""
    on_error: Literal["continue", "raise"] = "continue"
    """What to do if a search fails or times out: continue without it, recorded in the trace, or raise."""

    def __post_init__(self) -> None:
        check_fields(self)


@runtime_checkable
class Particular(Protocol):
    """A part that cannot be combined with every other part."""

    def check_with(self, settings: Settings) -> None:
        """Refuse settings that it cannot be combined with.

        Raises:
            ConfigurationError: If a part does not fit; the message says what to use instead.
        """


@dataclass(frozen=True)
class Settings:
    """A method with its model, retriever and prompt: the validated configuration of a graph. Nodes only read it.

    Raises:
        ConfigurationError: If a value has the wrong type or range, or two of them contradict each other.
    """

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
    max_passages: Annotated[int | None, Bounds(least=1)] = None
    """Maximum number of passages that accumulate in the prompt, of which the earliest stay; None: no limit."""
    lookahead: Annotated[int, Bounds(least=1)] = 64
    """Maximum number of tokens of a draft."""
    query_tokens: Annotated[int, Bounds(least=1)] = 64
    """Maximum number of tokens of a query; longer queries keep their end."""
    context_tokens: Annotated[int, Bounds(least=16)] = 1024
    """Maximum number of tokens of the passages in the prompt."""
    recheck: bool = False
    """Whether the trigger judges a regenerated sentence again; the published methods accept it."""
    budgets: Budgets = field(default_factory=Budgets)
    reformulation: Reformulation = field(default_factory=Reformulation)
    retrieval: RetrievalPolicy = field(default_factory=RetrievalPolicy)
    carries_content: WordFilter = field(default_factory=not_a_stop_word)
    seed: int | None = None
    """Seed for models that sample. Each draft's seed is derived from it, so that a resumed run samples the same
    tokens."""

    injector: Injector | None = None
    """Puts evidence into the model's parameters; None: all of it stands in the prompt."""
    selection: SegmentSelection | None = None
    """Writes one continuation per passage and keeps the best ones; None: one draft with all passages."""
    reflector: Reflector | None = None
    """Writes and judges the continuations; built from `selection` and the model."""

    evidence_selector: EvidenceSelector | None = None
    """Selects among the passages found; None: all of them are used."""

    final_answer: SurerAnswer | Reader | None = None
    """Compares the answer with a second one at the end, or writes it again from the passages alone; None: the answer is
    the text as written."""

    digest: ReasonInDocuments | None = None
    """Condenses search results before they are inserted into the answer; None: they are inserted as they are."""

    condense: Condenser | None = field(default_factory=CondenseQuestion)
    """Rewrites a question that has earlier turns in `messages` so that it stands alone; None: it is taken as it is."""

    classifier: AskComplexity | Classifier | None = None
    """Decides for each question whether this method answers it, a single retrieval is enough, or none is needed; None:
    this method answers all of them."""

    preset: str = ""
    """Name of the preset that the method began as, for the trace."""

    def __post_init__(self) -> None:
        if self.retriever is not None:
            check_retriever(self.retriever)
        check_fields(self)
        check_trigger(self.trigger)
        check_needs(self.query)
        if self.retriever is None and (self.initial_retrieval or not isinstance(self.trigger, Never)):
            raise ConfigurationError("no retriever was given, and this method retrieves; pass retriever=...")
        for part in (self.query, self.trigger, self.selection, self.final_answer, self.digest):
            if isinstance(part, Particular):
                part.check_with(self)
        if self.max_passages is not None and self.evidence_life != "accumulated":
            raise ConfigurationError(
                f"max_passages limits passages that accumulate, but evidence_life is {self.evidence_life!r}; use "
                "evidence_life='accumulated', or max_passages=None"
            )
        if self.classifier is not None and (self.selection is not None or self.tag_format is not None):
            raise ConfigurationError(
                f"classifier=... has some questions answered without {self.trigger}, but this method's prompt and "
                "nodes depend on it. Use another preset, such as 'adaptive_rag', or classifier=None."
            )
        # Reading the signals of a local model loads it, so they are only read if some are needed.
        if self.needs and (missing := self.needs - self.generator.signals):
            raise SignalUnavailableError(
                f"{self.trigger} with {self.query} needs {', '.join(sorted(missing))}; {self.generator!r} gives "
                f"{', '.join(sorted(self.generator.signals)) or 'none'}"
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that trigger, query formulator, evidence selector and final answer read."""
        parts = (self.trigger, self.query, self.evidence_selector, self.final_answer)
        return frozenset().union(*(part.needs for part in parts if part is not None))

    @property
    def placing(self) -> Injector:
        """The injector; by default one that leaves all evidence in the prompt."""
        return PromptOnly() if self.injector is None else self.injector

    @property
    def tag_format(self) -> TagFormat | None:
        """The format of searches that the model writes, with their results, into its text; None: it writes none."""
        return self.trigger.tag_format if isinstance(self.trigger, WrittenTag) else None

    def with_system(self, system: str) -> Settings:
        """Return these settings with a user's own system text in the prompt."""
        return replace(self, prompt=self.prompt.with_system(system)) if system else self

    def routed(self, route: Complexity | None) -> Settings:
        """Return the settings for a question of this class: as they are, for one retrieval, or for none."""
        if route is None or route == "multi":
            return self
        trigger = Never() if route == "none" else Once()
        return replace(self, trigger=trigger, query=Question(), initial_retrieval=False, final_answer=None)

    def overridden(self, context: DynamicRAGContext) -> Settings:
        """Return these settings with those of a run on top, validated again."""
        given = {f.name: getattr(context, f.name) for f in fields(context)}
        changed = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changed) if changed else self
