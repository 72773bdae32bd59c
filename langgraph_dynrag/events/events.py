"""The events of a run: what each kind says, and how to read them by kind.

An event is a plain dict with a `type`, so that checkpoints, JSON and clients of a server can hold it. Most events stand
in the trace and are sent to the `custom` stream as well; `token` and `training` are sent only. To make an event is to
call its class, `BudgetEvent(type="budget", ...)`, which mypy checks field by field; to read events of a kind, use
`events_of`. Readers keep kinds that they do not know: a newer version may have written them.

Times are in seconds, log-probabilities and entropies in nats, and `evidence`, `passages` and `documents` are ids of
passages unless said otherwise.
"""

# Annotations are evaluated here: `events_of` reads the `type` of a class.
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypeVar, cast, get_args

from typing_extensions import TypedDict

from langgraph_dynrag.drafts.draft import EndOfDraft
from langgraph_dynrag.drafts.tasks import DraftCost, NoText, ReplyCost
from langgraph_dynrag.events.parts import (
    Continuation,
    EvidenceCandidate,
    FoundPassage,
    GenerationCost,
    HypothesisDecision,
    KeptHypothesis,
    Outcome,
    SearchProblem,
    TrainingProgress,
    TrainingWait,
    UsageState,
)
from langgraph_dynrag.evidence import Source
from langgraph_dynrag.reflection.vote import BallotState
from langgraph_dynrag.seakr.final_answer import AnswerCandidateState, Basis
from langgraph_dynrag.search_tags.formats import Problem


class Recorded(TypedDict, total=False):
    """What a node adds to the events that it returns. The first event of a node has its time and its calls."""

    node: str
    """Absent where an agent's middleware wrote the event, and in the `custom` stream."""
    seconds: float
    """Working time of the node; of a `retrieval` the time of the search."""
    usage: UsageState
    """Usage of the node's model calls, if there were any."""


class QuestionEvent(Recorded):
    """The run begins with this question."""

    type: Literal["question"]
    question: str
    reason: NotRequired[str]
    """Why passages are searched for before anything is written; absent if they are not."""


class CondensedEvent(Recorded, ReplyCost):
    """A question with earlier turns was rewritten to stand alone."""

    type: Literal["condensed"]
    asked: str
    """The question as the user put it."""
    question: str
    """The question that is answered: the rewritten one, or the same if that failed."""
    turns: int
    """Earlier turns of the conversation."""
    left_out: int
    """How many of them did not fit into the prompt."""
    problem: str | None
    """Why the question was taken as it is, if it was."""
    warning: NotRequired[str]


class NotTextEvent(Recorded):
    """The user's messages have content that is no text, which is ignored."""

    type: Literal["not_text"]
    warning: str


class TokenEvent(TypedDict):
    """The model has written a token. Sent only."""

    type: Literal["token"]
    text: str
    logprob: float | None
    entropy: float | None
    candidate: NotRequired[int]
    """The index of the continuation, where several are written at once."""


class DraftEvent(Recorded, DraftCost):
    """A draft was written. All lists run over its tokens."""

    type: Literal["draft"]
    pieces: list[str]
    """The characters that each token completes."""
    logprobs: list[float]
    entropies: list[float] | None
    carried: int
    """Leading tokens that an earlier draft had already."""
    ended: EndOfDraft
    evidence: list[str]
    shortened_or_left_out: NotRequired[list[str]]
    """Passages that did not fit into the prompt as they are."""
    in_weights: NotRequired[list[str]]
    """Passages that acted through their adapters; absent if there is no injector, as the next one is."""
    in_prompt_because: NotRequired[dict[str, str]]
    """By id, why a passage stood in the prompt instead."""
    failures: NotRequired[list[str]]
    """Errors of the requests before the one that succeeded."""
    problem: NotRequired[NoText]
    """Why an agent's answer has no text."""


class ReasoningEvent(Recorded):
    """The model has reasoned before its reply."""

    type: Literal["reasoning"]
    text: str
    """Empty if the provider does not pass it on."""
    tokens: int


class RepetitionEvent(Recorded):
    """A reply began with what the answer says already; that was left out."""

    type: Literal["repetition"]
    text: str


class NoTextEvent(Recorded):
    """A reply brought no new text."""

    type: Literal["no_text"]
    problem: NoText | Literal["no short answer"]
    reply: int
    """How many replies in a row have brought none."""
    outcome: str


class CallsEvent(Recorded):
    """Models were called, and no other event says so: it only carries `usage`."""

    type: Literal["calls"]


class VerdictEvent(Recorded):
    """The trigger has judged a draft: `Verdict.to_state()`, or the first three where it was not asked."""

    type: Literal["verdict"]
    tokens: int
    """Tokens that were judged."""
    retrieve: bool
    reason: str
    trigger: NotRequired[str]
    scores: NotRequired[list[float | None]]
    score: NotRequired[float | None]
    threshold: NotRequired[float | None]
    position: NotRequired[int | None]
    hits: NotRequired[list[int]]
    cost: NotRequired[dict[str, float] | None]


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
    """Documents that the retriever returned; more than `k` are cut."""
    error: str | None
    identical: bool
    """Whether the search repeated an earlier one, by its query or by all that it found."""


class ReformulationEvent(Recorded):
    """What a search found was looked at: another query is tried, or the outcome stands."""

    type: Literal["reformulation"]
    problem: SearchProblem | None
    query: NotRequired[str]
    """The next query, the `rewrite`-th for this gap; absent if none is tried."""
    rewrite: NotRequired[int]
    outcome: NotRequired[Outcome]
    """Absent if another query is tried."""


class EvidenceChoiceEvent(Recorded):
    """Passages were chosen among those found. A selector of the user's own may record other fields than these."""

    type: Literal["evidence_choice"]
    by: NotRequired[str]
    candidates: NotRequired[list[EvidenceCandidate]]
    kept: NotRequired[list[str]]
    cost: NotRequired[dict[str, float]]
    """Of the samples: sequences, tokens, seconds."""


class DigestEvent(Recorded, ReplyCost):
    """The model was asked to condense what was found."""

    type: Literal["digest"]
    query: str
    documents: list[str]
    text: str | None
    """What it wrote; None: the documents are inserted as they were found."""
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


class InjectionEvent(Recorded):
    """Passages were put into the model's parameters."""

    type: Literal["injection"]
    mode: str
    in_weights: list[str]
    in_prompt_because: dict[str, str]
    """By id, why a passage stands in the prompt instead."""
    trained: int
    translated: int
    preparing_seconds: float
    strength: float
    forgetting: float | None
    """What the adapters change of answers to unrelated questions, nats a token; None: not measured."""
    left_out: dict[str, str]
    """By id, why a passage is not used at all."""
    conflicts: Mapping[str, Any] | None
    """Passages that contradict each other about the question; None: not measured."""
    training: TrainingWait | None


class TrainingEvent(TrainingProgress):
    """The run waits for adapters that are trained. Sent only."""

    type: Literal["training"]


class InsertedEvent(Recorded):
    """A search call of the model was answered in the text: with results, or with a notice if there is a problem."""

    type: Literal["inserted"]
    problem: Problem | None
    text: str
    """Empty if it does not fit into the context window."""
    passages: list[str]
    shortened_or_left_out: NotRequired[list[str]]


class JudgementEvent(Recorded, GenerationCost):
    """The model was asked whether each hypothesis needs a passage; None for those that were not asked about."""

    type: Literal["judgement"]
    retrieval: list[dict[str, float] | None]


class ReflectionEvent(Recorded):
    """It was decided how hypotheses go on."""

    type: Literal["reflection"]
    decisions: list[HypothesisDecision]


class ContinuationsEvent(Recorded, GenerationCost):
    """Continuations of the hypotheses were written and judged."""

    type: Literal["continuations"]
    path: str
    weights: dict[str, float]
    candidates: list[Continuation]
    shortened_or_left_out: NotRequired[list[str]]


class SelectionEvent(Recorded):
    """The best continuations were kept."""

    type: Literal["selection"]
    beam: list[KeptHypothesis]
    over: bool
    """Whether the answer ends with the first of them."""
    vote: NotRequired[BallotState]


class ClosingEvent(Recorded):
    """The short answer is asked for outright; `text` was written for the model to complete."""

    type: Literal["closing"]
    text: str


class FinalAnswerEvent(Recorded, ReplyCost):
    """An answer from the rationales was compared with one from the documents."""

    type: Literal["final_answer"]
    taken: Basis | Literal["written"]
    reason: str
    candidates: list[AnswerCandidateState]
    cost: NotRequired[dict[str, float]]
    """Of the samples: sequences, tokens, seconds. Absent if neither was written."""


class ExemplarEvent(Recorded):
    """The answer has facts from a worked example of the prompt, and from nowhere else."""

    type: Literal["exemplar"]
    facts: list[str]
    warning: str


class AnswerEvent(Recorded):
    """The answer is written."""

    type: Literal["answer"]
    answer: str
    short_answer: str
    sources: NotRequired[list[Source]]
    """In the `custom` stream only, as the warnings are; a state has both by themselves."""
    warnings: NotRequired[list[str]]


class KeptEvent(Recorded):
    """An agent's answer that was to be written again is given after all."""

    type: Literal["kept"]
    reason: str
    warning: NotRequired[str]


class DegradedEvent(Recorded):
    """An agent's answer was not watched."""

    type: Literal["degraded"]
    reason: str
    warning: str


Event: TypeAlias = (
    QuestionEvent
    | CondensedEvent
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
        events: The events of a trace, of this version or of another one.
        kind: The class, such as `RetrievalEvent`.
    """
    (name,) = get_args(kind.__annotations__["type"])
    return [cast("_E", event) for event in events if event["type"] == name]
