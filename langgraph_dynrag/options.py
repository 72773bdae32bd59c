"""The options of `create_dynamic_rag`, `create_nodes` and `calibrate`: one definition, which editors complete."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import TypedDict

from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.inputs.complexity import AskComplexity, Classifier
from langgraph_dynrag.inputs.condensing import Condenser
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.reader import Reader
from langgraph_dynrag.reflection.base import SegmentSelection
from langgraph_dynrag.seakr.evidence_selection import EvidenceSelector
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.search_tags.reason_in_documents import ReasonInDocuments
from langgraph_dynrag.settings import EvidenceLife, Reformulation, ResumeAt, RetrievalPolicy
from langgraph_dynrag.triggers.base import Trigger
from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import WordFilter


class OtherOptions(TypedDict, total=False):
    """The parts of a method except its trigger; see `DynamicRAGOptions`."""

    query: QueryFormulator
    """What to search for; see `langgraph_dynrag.queries`."""
    prompt: AnswerPrompt | None
    """Instructions, exemplars and layout. None: the preset's own."""
    k: int
    """Passages per search."""
    initial_retrieval: bool
    """Whether to search with the question before anything is written."""
    resume_at: ResumeAt
    """Where writing resumes after a retrieval."""
    evidence_life: EvidenceLife
    """How long passages stay in the prompt."""
    max_passages: int | None
    """Maximum number of passages that accumulate in the prompt."""
    lookahead: int
    """Maximum number of tokens of a draft."""
    query_tokens: int
    """Maximum number of tokens of a query; longer ones keep their end."""
    context_tokens: int
    """Maximum number of tokens of the passages in the prompt."""
    recheck: bool
    """Whether the trigger also judges regenerated sentences."""
    budgets: Budgets
    """Limits on retrievals, tokens and seconds."""
    reformulation: Reformulation
    """What to do after a search that found nothing useful."""
    retrieval: RetrievalPolicy
    """Time-out and error policy of searches."""
    carries_content: WordFilter
    """Which words carry content; by default those that are no stop words."""
    seed: int | None
    """Seed for models that sample."""
    selection: SegmentSelection | None
    """Self-RAG's segment-wise selection among continuations, one for each passage."""
    evidence_selector: EvidenceSelector | None
    """Which of the passages found are used."""
    final_answer: SurerAnswer | Reader | None
    """Comparison of the answer with a second one at the end (SeaKR), or an answer from the passages alone (IRCoT)."""
    digest: ReasonInDocuments | None
    """Condensing of search results before they are inserted (Search-o1)."""
    classifier: AskComplexity | Classifier | None
    """How much retrieval each question needs (Adaptive-RAG): a function from a question to `"none"`, `"single"` or
    `"multi"`, or `AskComplexity()`, which asks the model."""
    condense: Condenser | None
    """Rewriting of a question in a conversation so that it stands alone."""


class DynamicRAGOptions(OtherOptions, total=False):
    """Parts of a method, each of which replaces the preset's own.

    They are keyword arguments of `create_dynamic_rag`, `create_nodes` and `calibrate`, named like fields of `Settings`.
    """

    trigger: Trigger
    """When to retrieve; see `langgraph_dynrag.triggers`."""


OPTIONS = frozenset(DynamicRAGOptions.__optional_keys__)

_ELSEWHERE = {
    "dataset": "preset=get_preset(NAME, dataset=...)",
    "bundle": "preset=get_preset(NAME, bundle=...)",
    "missing": "injection=ParametricInjector(adapters, missing=...)",
    "forgetting": "injection=ParametricInjector(adapters, forgetting=...)",
    "conflicts": "injection=ParametricInjector(adapters, conflicts=...)",
    "ensemble": "injection=ParametricInjector(adapters, ensemble=...)",
    "merge": "injection=ParametricInjector(adapters, merge=...)",
    "max_active": "injection=ParametricInjector(adapters, max_active=...)",
    "strength": "injection=ParametricInjector(adapters, strength=...)",
    "threshold": "trigger=TokenProbability(0.5), for example",
    "timeout": "retrieval=RetrievalPolicy(timeout=...)",
}
"""Names that users look for here, and where they belong."""


def refuse_unknown_options(given: Iterable[str], owner: str, parameters: Iterable[str]) -> None:
    """Refuse options that do not exist.

    Args:
        given: The options' names.
        owner: The function that was called, for the message.
        parameters: Its own parameters, which the message lists as well.

    Raises:
        ConfigurationError: Naming each unknown option, and where it belongs or the nearest known one.
    """
    given = list(given)
    moved = [name for name in given if name in _ELSEWHERE]
    if moved:
        lines = "; ".join(f"{name} belongs elsewhere: {_ELSEWHERE[name]}" for name in moved)
        raise ConfigurationError(f"{owner} has no argument {', '.join(map(repr, moved))}; {lines}")
    refuse_unknown(given, {*OPTIONS, *parameters}, owner)
