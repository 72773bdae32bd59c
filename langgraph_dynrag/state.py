"""The graph's state: plain, serialisable data, so that any checkpointer can save it and a killed run can be resumed.

Attention rows are the exception. They are kept in a channel that is never saved, and are recomputed if a run was
resumed between the node that produced them and the node that needs them.
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
from langgraph_dynrag.events.parts import Complexity
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
"""`closing`: the short answer was asked for explicitly; `concluding`: it is written, and compared with another one."""


class StateVersionError(DynPragError, RuntimeError):
    """A checkpoint was written with another version of the state."""


def _as(plain: Any) -> GetPydanticSchema:
    """Return an annotation that hides a type from the JSON schemas: clients of a server see plain data.

    Otherwise the schemas would change with every new kind of event.
    """
    return GetPydanticSchema(lambda _, handler: handler(plain))


class Replies(TypedDict, total=False):
    """Counts and properties of the model's replies in this run."""

    reasoning_tokens: int
    repetitions: int
    """Number of replies that began with text already written."""
    fruitless: int
    """Number of consecutive replies without new text."""
    problem: NoText | None
    """Why the last reply brought no text; None if it did."""
    opens: bool
    """Whether replies start within a block of reasoning; absent if unknown."""


class Answered(TypedDict):
    """The last question answered on a thread."""

    question: str
    message_id: str | None
    """Id of the message that contained it, if there was one."""


class DynamicRAGInput(TypedDict, total=False):
    """The graph's input: a question, or messages that end with one.

    A question with earlier turns is rewritten to stand alone, and system messages are kept in the prompt.
    """

    question: str
    messages: Annotated[list[AnyMessage], add_messages]


class DynamicRAGOutput(TypedDict, total=False):
    """The graph's output."""

    question: str
    """The question that was searched for and answered; in a conversation, the condensed question."""
    answer: str
    """The whole text, the reasoning included."""
    short_answer: str
    """The text after the prompt's answer phrase."""
    sources: list[Source]
    """The passages that the answer was written with, numbered."""
    warnings: list[str]
    """Warnings for the reader of the answer, such as failed searches. Empty if there are none."""
    messages: Annotated[list[AnyMessage], add_messages]
    trace: Annotated[list[Event], _as(list[dict[str, Any]]), operator.add]
    """The run's events; `Trace.from_state` makes them readable."""


_PLAIN = _as(dict[str, Any] | None)


class DynamicRAGState(DynamicRAGInput, DynamicRAGOutput, total=False):
    """Everything that the nodes store, as plain data that any checkpointer can serialise.

    A graph with nodes of its own extends it; its fields must not share these names.
    """

    route: Complexity | None
    """How much retrieval the question needs, if it was classified."""
    system: str
    """The system messages that came with the question, which are kept in the prompt."""
    text: str
    """The accepted answer so far."""
    token_ids: list[int] | None
    """Token ids of `text`; None if the model does not report them."""
    entropies: list[float]
    """Entropies of the tokens of its content words, in order."""
    hidden: list[list[int]]
    """Character spans `[start, end]` of the text that are not part of the answer: search calls and their results."""
    notices: int
    """Number of search calls that got a notice instead of results."""
    answer_tokens: int
    draft: Annotated[DraftState | None, _PLAIN]
    """Tokens written but not yet accepted: `Draft.to_state()`."""
    judged: int
    """Number of draft tokens that the verdict covers."""
    verdict: Annotated[VerdictState | None, _PLAIN]
    queries: list[str]
    """The next queries for `retrieve`."""
    found: list[Passage]
    """The passages that `retrieve` found, until `resume` uses them."""
    evidence: list[Passage]
    """The passages in the prompt."""
    asked: list[str]
    """All queries of this run."""
    seen: list[str]
    """Ids of all passages found in this run."""
    replies: Annotated[Replies, _as(dict[str, Any])]
    rewrites: int
    """Number of rewrites of the current query."""
    retrievals: int
    identical: int
    """Number of searches that repeated an earlier one: the same query, or only passages that had been found before."""
    regenerating: bool
    """Whether the next unit replaces a discarded one. It is accepted without being judged unless `recheck` is set."""
    beam: Annotated[BeamState | None, _PLAIN]
    """All hypotheses of the answer, if continuations are selected: `Beam.to_state()`."""
    stage: Stage
    budget_hit: str | None
    answered: Annotated[Answered | None, _PLAIN]
    """The last question answered on this thread, to tell the next one apart from it."""
    seconds: dict[str, float]
    """Working time by node."""
    run_id: str
    version: int
    attention: Annotated[Any, UntrackedValue]
    """`AttentionRows` of the draft; never saved. Typed `Any`, because channels' JSON schemas know no arrays."""


State = DynamicRAGState
Update = DynamicRAGState
"""The keys that a node changes, as returned by the node."""
AnyState = Mapping[str, Any]
"""A state in signatures that LangGraph inspects. From a `TypedDict`, LangGraph would add the channels to any graph that
contains the node, and reject a graph that has one of them with a different reducer."""

_BUDGETS = {f.name: {"type": "number" if f.name == "seconds" else "integer"} for f in fields(Budgets)}
# Written by hand, because the default of `seconds` is infinite, which JSON cannot express.
_PLAIN_BUDGETS = WithJsonSchema({"anyOf": [{"type": "object", "properties": _BUDGETS}, {"type": "null"}]})
_IN_PROCESS = WithJsonSchema({"type": "null", "description": "An object, which only code can give."})


@known_arguments
@dataclass
class DynamicRAGContext:
    """Per-run overrides: `graph.invoke(input, context={"k": 5})`. Fields that are None keep the graph's settings.

    Budgets may be given as a mapping, as clients of a LangGraph server send them: `{"budgets": {"tokens": 64}}`.
    Budgets that it omits get the defaults of `Budgets`.

    Raises:
        ConfigurationError: If a name is unknown, or a value has the wrong type or is out of range.
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
    """Reject a state that another version of this package wrote.

    Raises:
        StateVersionError: If the versions differ; the message says what to do.
    """
    found = state.get("version", VERSION)
    if found != VERSION:
        raise StateVersionError(
            f"this run's checkpoint has state version {found}; this version of dynprag reads state version {VERSION}. "
            "Ask the question again on a new thread_id, or finish the run with the version that started it."
        )


def spent(state: State) -> float:
    """Return the run's working time so far, in seconds."""
    return sum((state.get("seconds") or {}).values())
