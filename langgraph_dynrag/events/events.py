"""The events of a run: the fields of each kind, and how to read events by kind.

An event is a plain dict with a `type`, so that checkpoints, JSON and server clients can hold it. Most events are kept
in the trace and also sent to the `custom` stream; `token` and `training` events are only sent. Create an event by
calling its class, `BudgetEvent(type="budget", ...)`, which mypy checks field by field. Read events of one kind with
`events_of`. Readers keep kinds that they do not know, which a newer version may have written.

Times are in seconds, and log-probabilities and entropies in nats. `evidence`, `passages` and `documents` are passage
ids unless noted otherwise.
"""

# Annotations are evaluated in this module because `events_of` reads the `type` of a class.
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypeVar, cast, get_args

from typing_extensions import TypedDict

from langgraph_dynrag.drafts.draft import EndOfDraft
from langgraph_dynrag.drafts.tasks import DraftCost, NoText, ReplyCost
from langgraph_dynrag.events.parts import (
    Complexity,
    EvidenceCandidate,
    FoundPassage,
    Outcome,
    Recorded,
    SearchProblem,
    TrainingProgress,
    TrainingWait,
)
from langgraph_dynrag.events.selection_events import (
    ContinuationsEvent,
    JudgementEvent,
    ReflectionEvent,
    SelectionEvent,
)
from langgraph_dynrag.evidence import Source
from langgraph_dynrag.seakr.final_answer import AnswerCandidateState, Basis
from langgraph_dynrag.search_tags.formats import Problem


class QuestionEvent(Recorded):
    """The run starts with this question."""

    type: Literal["question"]
    question: str
    reason: NotRequired[str]
    """Why passages are searched for before anything is written; absent if they are not."""
    preset: NotRequired[str]
    """Name of the preset; options may have replaced parts of it. Absent in an agent's record."""


class CondensedEvent(Recorded, ReplyCost):
    """A question with earlier turns was rewritten to stand alone."""

    type: Literal["condensed"]
    asked: str
    """The question as the user asked it."""
    question: str
    """The question to answer: the rewritten one, or the original if rewriting failed."""
    turns: int
    """Number of earlier turns of the conversation."""
    left_out: int
    """Number of those turns that did not fit into the prompt."""
    problem: str | None
    """Why the original question was used; None if it was rewritten."""
    warning: NotRequired[str]


class RouteEvent(Recorded, ReplyCost):
    """The question was classified by how much retrieval it needs, and is answered accordingly."""

    type: Literal["route"]
    route: Complexity
    by: str
    """Name of the classifier, or "the model"."""
    reply: NotRequired[str]
    """The model's reply; absent if a function classified."""
    problem: str | None
    """Why one retrieval is made instead; None if the question was classified."""
    warning: NotRequired[str]


class NotTextEvent(Recorded):
    """The user's messages contain content other than text, which is ignored."""

    type: Literal["not_text"]
    warning: str


class TokenEvent(TypedDict):
    """The model wrote a token. Only sent, never kept in the trace."""

    type: Literal["token"]
    text: str
    logprob: float | None
    entropy: float | None
    candidate: NotRequired[int]
    """Index of the continuation, if several are written at once."""


class DraftEvent(Recorded, DraftCost):
    """A draft was written. All lists have one entry per token."""

    type: Literal["draft"]
    pieces: list[str]
    """The characters that each token completes."""
    logprobs: list[float]
    entropies: list[float] | None
    carried: int
    """Number of leading tokens carried over from an earlier draft."""
    ended: EndOfDraft
    evidence: list[str]
    shortened_or_left_out: NotRequired[list[str]]
    """Passages that were truncated or left out because they did not fit into the prompt."""
    in_weights: NotRequired[list[str]]
    """Passages that acted through their adapters. Absent without an injector, like the next field."""
    in_prompt_because: NotRequired[dict[str, str]]
    """Maps a passage id to the reason why the passage stood in the prompt instead."""
    failures: NotRequired[list[str]]
    """Errors of the requests before the one that succeeded."""
    problem: NotRequired[NoText]
    """Why an agent's answer has no text."""


class ReasoningEvent(Recorded):
    """The model reasoned before its reply."""

    type: Literal["reasoning"]
    text: str
    """Empty if the provider does not return it."""
    tokens: int


class RepetitionEvent(Recorded):
    """A reply repeated the beginning of the answer so far; the repetition was left out."""

    type: Literal["repetition"]
    text: str


class NoTextEvent(Recorded):
    """A reply brought no new text."""

    type: Literal["no_text"]
    problem: NoText | Literal["no short answer"]
    reply: int
    """Number of consecutive replies without new text, this one included."""
    outcome: str


class CallsEvent(Recorded):
    """Models were called, and no other event records it: this one only carries `usage`."""

    type: Literal["calls"]


class VerdictEvent(Recorded):
    """The trigger judged a draft: the fields of `Verdict.to_state()`, or only the first three if it was not asked."""

    type: Literal["verdict"]
    tokens: int
    """Number of tokens judged."""
    retrieve: bool
    reason: str
    trigger: NotRequired[str]
    scores: NotRequired[list[float | None]]
    score: NotRequired[float | None]
    threshold: NotRequired[float | None]
    position: NotRequired[int | None]
    hits: NotRequired[list[int]]
    cost: NotRequired[dict[str, float] | None]
    warning: NotRequired[str]
    """If the verdict ended the run with a short answer of its own."""


class AcceptedEvent(Recorded):
    """Drafted tokens became part of the answer."""

    type: Literal["accepted"]
    text: str
    tokens: int


class BudgetEvent(Recorded):
    """A budget is used up."""

    type: Literal["budget"]
    which: str
    limit: float


class QueryEvent(Recorded):
    """Queries were formulated."""

    type: Literal["query"]
    queries: list[str]
    rewrite: int


class RetrievalEvent(Recorded):
    """A query was searched for."""

    type: Literal["retrieval"]
    query: str
    documents: list[FoundPassage]
    returned: int
    """Number of documents that the retriever returned; those beyond `k` are cut."""
    error: str | None
    identical: bool
    """Whether the search repeated an earlier one, by its query or by all that it found."""


class ReformulationEvent(Recorded):
    """The results of a search were checked: either another query is tried, or the outcome is final."""

    type: Literal["reformulation"]
    problem: SearchProblem | None
    query: NotRequired[str]
    """The next query, number `rewrite` for this gap; absent if none is tried."""
    rewrite: NotRequired[int]
    outcome: NotRequired[Outcome]
    """Absent if another query is tried."""


class EvidenceChoiceEvent(Recorded):
    """Passages were selected among those found. A custom selector may record other fields."""

    type: Literal["evidence_choice"]
    by: NotRequired[str]
    candidates: NotRequired[list[EvidenceCandidate]]
    kept: NotRequired[list[str]]
    cost: NotRequired[dict[str, float]]
    """Cost of the samples: sequences, tokens, seconds."""


class DigestEvent(Recorded, ReplyCost):
    """The model was asked to condense the documents found."""

    type: Literal["digest"]
    query: str
    documents: list[str]
    text: str | None
    """The condensed text; None: the documents are inserted as they were found."""
    helpful: bool | None
    problem: str | None
    writing_seconds: float
    shortened_or_left_out: NotRequired[list[str]]


class ResumeEvent(Recorded):
    """A draft was cut back to where information was needed."""

    type: Literal["resume"]
    kept: str
    kept_tokens: int
    discarded: str
    discarded_tokens: int
    evidence: list[str]
    left_out: NotRequired[list[str]]
    """Passages found that are not used, because `max_passages` others are; absent if there are none."""


class InjectionEvent(Recorded):
    """Passages were injected into the model's parameters."""

    type: Literal["injection"]
    mode: str
    in_weights: list[str]
    in_prompt_because: dict[str, str]
    """Maps a passage id to the reason why the passage stands in the prompt instead."""
    trained: int
    translated: int
    preparing_seconds: float
    strength: float
    forgetting: float | None
    """Change that the adapters cause in answers to unrelated questions, in nats per token; None: not measured."""
    left_out: dict[str, str]
    """Maps a passage id to the reason why the passage is not used at all."""
    conflicts: Mapping[str, Any] | None
    """Passages that contradict each other about the question; None: not measured."""
    routing: Mapping[str, float | None] | None
    """Maps a passage id to its score by the router; None: the retrieval scores decided."""
    training: TrainingWait | None


class TrainingEvent(TrainingProgress):
    """The run waits for adapters to be trained. Only sent, never kept in the trace."""

    type: Literal["training"]


class InsertedEvent(Recorded):
    """A search call of the model was answered in the text, with results or, if there is a problem, with a notice."""

    type: Literal["inserted"]
    problem: Problem | None
    text: str
    """Empty if it does not fit into the context window."""
    passages: list[str]
    shortened_or_left_out: NotRequired[list[str]]


class ClosingEvent(Recorded):
    """The short answer is asked for explicitly; `text` was written for the model to complete."""

    type: Literal["closing"]
    text: str


class FinalAnswerEvent(Recorded, ReplyCost):
    """The answer was written again by a reader, without candidates, or in two ways that were compared."""

    type: Literal["final_answer"]
    taken: Basis | Literal["written"]
    reason: str
    candidates: list[AnswerCandidateState]
    cost: NotRequired[dict[str, float]]
    """Cost of the samples: sequences, tokens, seconds. Absent if no answers were compared."""


class ExemplarEvent(Recorded):
    """The answer contains facts from a worked example of the prompt that occur nowhere else."""

    type: Literal["exemplar"]
    facts: list[str]
    warning: str


class AnswerEvent(Recorded):
    """The answer is complete."""

    type: Literal["answer"]
    answer: str
    short_answer: str
    sources: NotRequired[list[Source]]
    """Only in the `custom` stream, like `warnings`; a state holds both separately."""
    warnings: NotRequired[list[str]]


class KeptEvent(Recorded):
    """An agent's answer that was to be rewritten is returned unchanged."""

    type: Literal["kept"]
    reason: str
    warning: NotRequired[str]


class DegradedEvent(Recorded):
    """An agent's answer was not monitored."""

    type: Literal["degraded"]
    reason: str
    warning: str


Event: TypeAlias = (
    QuestionEvent
    | CondensedEvent
    | RouteEvent
    | NotTextEvent
    | DraftEvent
    | ReasoningEvent
    | RepetitionEvent
    | NoTextEvent
    | CallsEvent
    | VerdictEvent
    | AcceptedEvent
    | BudgetEvent
    | QueryEvent
    | RetrievalEvent
    | ReformulationEvent
    | EvidenceChoiceEvent
    | DigestEvent
    | ResumeEvent
    | InjectionEvent
    | InsertedEvent
    | JudgementEvent
    | ReflectionEvent
    | ContinuationsEvent
    | SelectionEvent
    | ClosingEvent
    | FinalAnswerEvent
    | ExemplarEvent
    | AnswerEvent
    | KeptEvent
    | DegradedEvent
)
StreamEvent: TypeAlias = Event | TokenEvent | TrainingEvent

_E = TypeVar("_E")


def events_of(events: Iterable[Mapping[str, Any]], kind: type[_E]) -> list[_E]:
    """Return the events of one kind, in order.

    Args:
        events: The events of a trace; another version may have written them.
        kind: The class, such as `RetrievalEvent`.
    """
    (name,) = get_args(kind.__annotations__["type"])
    return [cast("_E", event) for event in events if event.get("type") == name]
