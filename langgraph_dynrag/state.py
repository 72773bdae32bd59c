"""The graph's state: plain, serialisable data, so that any checkpointer keeps it and a killed run goes on.

Attention rows are the exception. They travel in a channel that is never saved, and are recomputed when a run was
resumed between the node that made them and the node that needs them.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from langchain_core.messages import AnyMessage
from langgraph.channels import UntrackedValue
from langgraph.graph.message import add_messages
from pydantic import ConfigDict, GetPydanticSchema, WithJsonSchema
from typing_extensions import TypedDict

from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.drafts.draft import DraftState, VerdictState
from langgraph_dynrag.drafts.tasks import NoText
from langgraph_dynrag.events.events import Event
from langgraph_dynrag.evidence import Passage, Source
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.reflection.beam import BeamState
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from langgraph_dynrag.triggers.base import Trigger
from rag_backbone.checks import known_arguments
from rag_backbone.errors import DynPragError
from rag_backbone.typed_fields import Bounds, check_fields

VERSION = 1
Stage = Literal["drafting", "closing", "concluding", "done"]
"""`closing`: the short answer was asked for outright; `concluding`: it is written, and compared with another one."""


class StateVersionError(DynPragError, RuntimeError):
    """A checkpoint was written by another version of the state."""


def _as(plain: Any) -> GetPydanticSchema:
    """Return an annotation that keeps a type out of the JSON schemas: clients of a server see plain data.

    The schemas would otherwise change with each kind of event.
    """
    return GetPydanticSchema(lambda _, handler: handler(plain))


class Replies(TypedDict, total=False):
    """What is known of the model's replies in this run."""

    reasoning_tokens: int
    repetitions: int
    """Replies that began with what was written already."""
    fruitless: int
    """Replies in a row that brought no text."""
    problem: NoText | None
    """Why the last one brought none, if it did not."""
    opens: bool
    """Whether replies begin within a block of reasoning; absent if that is not known."""


class Answered(TypedDict):
    """The question answered last on a thread."""

    question: str
    message_id: str | None
    """Id of the message that it came in, if it came in one."""


class DynamicRAGInput(TypedDict, total=False):
    """What the graph takes: a question, or messages that end with one.

    A question that comes with earlier turns is made to stand alone, and system messages stay in the prompt.
    """

    question: str
    messages: Annotated[list[AnyMessage], add_messages]


class DynamicRAGOutput(TypedDict, total=False):
    """What the graph gives."""

    question: str
    """As it was searched for and answered: of a conversation the condensed question."""
    answer: str
    """Everything that was written, the reasoning included."""
    short_answer: str
    """What follows the prompt's answer phrase."""
    sources: list[Source]
    """The passages that the answer was written with, numbered."""
    warnings: list[str]
    """What a reader of the answer should be told: searches that failed, for example. Empty if all went well."""
    messages: Annotated[list[AnyMessage], add_messages]
    trace: Annotated[list[Event], _as(list[dict[str, Any]]), operator.add]
    """Events; see `Trace.from_state`."""


_PLAIN = _as(dict[str, Any] | None)


class DynamicRAGState(DynamicRAGInput, DynamicRAGOutput, total=False):
    """Everything that the nodes keep."""

    system: str
    """The system messages that came with the question, which stay in the prompt."""
    text: str
    """The accepted answer so far."""
    token_ids: list[int] | None
    """Its token ids; None if the model does not tell."""
    entropies: list[float]
    """Entropies of its content words' tokens, in order."""
    hidden: list[list[int]]
    """Character spans `[start, end]` of the text that are no part of the answer: search calls and their results."""
    notices: int
    """How often a search call got a notice instead of a search."""
    answer_tokens: int
    draft: Annotated[DraftState | None, _PLAIN]
    """Tokens written and not accepted yet: `Draft.to_state()`."""
    judged: int
    """How many of the draft's tokens the verdict is about."""
    verdict: Annotated[VerdictState | None, _PLAIN]
    queries: list[str]
    """What `retrieve` will search for next."""
    found: list[Passage]
    """What it found, until `resume` has used it."""
    evidence: list[Passage]
    """The passages in the prompt."""
    asked: list[str]
    """All queries of this run."""
    seen: list[str]
    """Ids of all passages that were found in this run."""
    replies: Annotated[Replies, _as(dict[str, Any])]
    rewrites: int
    """Rewrites of the current query."""
    retrievals: int
    identical: int
    """Searches that repeated an earlier one: the same query, or nothing but passages that had been found before."""
    regenerating: bool
    """Whether the next unit replaces one that was discarded; it is accepted as it comes."""
    beam: Annotated[BeamState | None, _PLAIN]
    """Where continuations are selected, all hypotheses of the answer: `Beam.to_state()`."""
    stage: Stage
    budget_hit: str | None
    answered: Annotated[Answered | None, _PLAIN]
    """The question answered last on this thread, so that the next one is told apart from it."""
    seconds: dict[str, float]
    """Working time by node."""
    run_id: str
    version: int
    attention: Annotated[Any, UntrackedValue]
    """`AttentionRows` of the draft; never saved. Not so typed, because the channel's JSON schema knows no arrays."""


State = DynamicRAGState
Update = DynamicRAGState
"""What a node returns: the keys that it changes."""
AnyState = Mapping[str, Any]
"""A state in the signatures that LangGraph reads. It would add the channels of a `TypedDict` to the graph that a node
is put into, and refuse a graph that has one of them with a reducer of its own."""

_BUDGETS = {f.name: {"type": "number" if f.name == "seconds" else "integer"} for f in fields(Budgets)}
# By hand, because the default of `seconds` is infinite, which JSON cannot say.
_PLAIN_BUDGETS = WithJsonSchema({"anyOf": [{"type": "object", "properties": _BUDGETS}, {"type": "null"}]})
_IN_PROCESS = WithJsonSchema({"type": "null", "description": "An object, which only code can give."})


@known_arguments
@dataclass
class DynamicRAGContext:
    """Per-run overrides: `graph.invoke(input, context={"k": 5})`. What is None stays as the graph was built.

    Budgets may be a mapping, as a client of a LangGraph server sends them: `{"budgets": {"tokens": 64}}`. Those that it
    leaves out have the defaults of `Budgets`.

    Raises:
        ConfigurationError: If a name is unknown, or a value of another type or out of range.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    retriever: Annotated[Retriever | None, _IN_PROCESS] = None
    trigger: Annotated[Trigger | None, _IN_PROCESS] = None
    query: Annotated[QueryFormulator | None, _IN_PROCESS] = None
    k: Annotated[int | None, Bounds(least=1)] = None
    budgets: Annotated[Budgets | None, _PLAIN_BUDGETS] = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.retriever is not None:
            check_retriever(self.retriever)
        budgets: Any = self.budgets
        if isinstance(budgets, Mapping):
            self.budgets = Budgets(**budgets)
        check_fields(self)


def check_version(state: Mapping[str, Any]) -> None:
    """Refuse a state that another version of this package wrote.

    Raises:
        StateVersionError: Saying what to do.
    """
    found = state.get("version", VERSION)
    if found != VERSION:
        raise StateVersionError(
            f"this run's checkpoint has state version {found}; this dynprag reads version {VERSION}. "
            "Ask the question again on a new thread_id, or finish the run with the version that began it."
        )


def spent(state: State) -> float:
    """Working seconds of the run so far."""
    return sum((state.get("seconds") or {}).values())
