"""Having the model condense search results before they are inserted. Used by `resume` if the settings have a `digest`.

If anything goes wrong, the documents are inserted as they were found, and the event records why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.drafts.tasks import Reply
from langgraph_dynrag.events.events import DigestEvent
from langgraph_dynrag.events.makers import with_cost
from langgraph_dynrag.evidence import Passage, passage, render, within_budget
from langgraph_dynrag.search_tags.formats import TagFormat
from langgraph_dynrag.search_tags.reason_in_documents import ReasonInDocuments, steps_so_far
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State, spent
from langgraph_dynrag.steps.insert import last_hidden
from langgraph_dynrag.streaming import emit


@dataclass(frozen=True)
class Digest:
    """The text to insert instead of the documents found."""

    events: tuple[DigestEvent, ...] = ()
    """The event that records the model call; empty if there was none."""
    passage: Passage | None = None
    """The condensed text; None: the documents themselves are inserted."""
    documents: Sequence[str] = ()
    """Ids of the documents that it was condensed from."""
    helpful: bool = True
    """Whether any of the documents helped."""


AS_FOUND = Digest()
"""The digest if nothing is condensed."""


@dataclass(frozen=True)
class _Asked:
    """The prompt of the call to make, or the reason why it cannot be made."""

    prompt: str = ""
    documents: list[str] = field(default_factory=list)
    """Ids of the documents that the model is shown."""
    affected: list[str] = field(default_factory=list)
    """Ids of the documents that were truncated or left out."""
    query: str = ""
    problem: str | None = None


def condense(state: State, settings: Settings, found: Sequence[Passage], config: RunnableConfig) -> Digest:
    """Condense the documents if the settings ask for it and there are any."""
    call = _prepared(state, settings, found)
    if call is None:
        return AS_FOUND
    if call.asked.problem is None:
        with call:
            call.reply = settings.generator.reply(call.asked.prompt, config, max_tokens=call.tokens)
    return call.digest()


async def acondense(state: State, settings: Settings, found: Sequence[Passage], config: RunnableConfig) -> Digest:
    """Condense the documents as `condense` does, without blocking the event loop."""
    call = _prepared(state, settings, found)
    if call is None:
        return AS_FOUND
    if call.asked.problem is None:
        with call:
            call.reply = await settings.generator.areply(call.asked.prompt, config, max_tokens=call.tokens)
    return call.digest()


class _Call:
    """The model call: a context manager that catches the call's errors, and the outcome."""

    def __init__(self, how: ReasonInDocuments, asked: _Asked) -> None:
        self.asked, self.tokens = asked, how.tokens
        self.reply: Reply | None = None
        self._how = how
        self._problem = asked.problem
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self._seconds = time.monotonic() - self._started
        # A model may raise anything, and the documents can be used without it. A graph interrupt is not an error.
        if not isinstance(error, Exception) or isinstance(error, GraphBubbleUp):
            return False
        self._problem = f"{type(error).__name__}: {error}"
        return True

    def digest(self) -> Digest:
        """Return what to insert, with the event that records it."""
        finding = None if self.reply is None else self._how.finding(self.reply.text)
        problem = "the reply is empty" if self.reply is not None and finding is None else self._problem
        event = DigestEvent(
            type="digest",
            query=self.asked.query,
            documents=self.asked.documents,
            text=None if finding is None else finding.text,
            helpful=None if finding is None else finding.helpful,
            problem=problem,
            writing_seconds=self._seconds,
        )
        event = with_cost(event, None if self.reply is None else self.reply.cost)
        if self.asked.affected:
            event["shortened_or_left_out"] = self.asked.affected
        emit(event)
        inserted = None if finding is None else passage(finding.text, {}, "digest")
        return Digest((event,), inserted, self.asked.documents, finding is None or finding.helpful)


def _prepared(state: State, settings: Settings, found: Sequence[Passage]) -> _Call | None:
    how, tag_format = settings.digest, settings.tag_format
    if how is None or tag_format is None or not found:
        return None
    return _Call(how, _asked(state, settings, how, tag_format, found))


def _asked(
    state: State, settings: Settings, how: ReasonInDocuments, tag_format: TagFormat, found: Sequence[Passage]
) -> _Asked:
    """Build the prompt within the limits of its parts and of the context window."""
    query = str((state.get("asked") or [state["question"]])[-1])
    if spent(state) >= settings.budgets.seconds:
        return _Asked(query=query, problem="no time is left")
    generator = settings.generator
    text, hidden = _written(state, tag_format)
    steps = steps_so_far(text, hidden, tag_format, how.steps_tokens, generator.count_tokens)
    budget = settings.context_tokens
    if generator.context_window is not None:
        fixed = generator.prompt_tokens([HumanMessage(how.prompt(steps, query, ""))])
        budget = min(budget, generator.context_window - fixed - how.tokens)
    shown, affected = within_budget([tag_format.disarmed(p) for p in found], max(budget, 0), generator.count_tokens)
    if not shown:
        return _Asked(affected=affected, query=query, problem="the documents do not fit into the context window")
    return _Asked(how.prompt(steps, query, render(shown)), [p["id"] for p in shown], affected, query)


def _written(state: State, tag_format: TagFormat) -> tuple[str, list[list[int]]]:
    """Return the text that ends in the call being answered, and its hidden spans."""
    draft = Draft.from_state(state.get("draft"))[: state.get("judged") or 0]
    text = str(state.get("text") or "") + draft.text
    hidden = [list(span) for span in state.get("hidden") or []]
    return text, hidden + [list(span) for span in tag_format.marked(text, last_hidden(state))]
