"""`DynamicRetrievalMiddleware`: make an agent built by LangChain's `create_agent` retrieve when it is unsure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any, Literal, NotRequired

from rag_backbone.extras import needed_for

with needed_for("DynamicRetrievalMiddleware"):
    from langchain.agents.middleware.types import (
        AgentMiddleware,
        AgentState,
        ContextT,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
        OmitFromInput,
        PrivateStateAttr,
        ResponseT,
        hook_config,
    )
from langchain_core.messages import AIMessage, RemoveMessage
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langgraph.channels import UntrackedValue
from langgraph.constants import TAG_NOSTREAM
from langgraph.runtime import Runtime
from langgraph.types import Command

from langgraph_dynrag.agents.options import WatchOptions
from langgraph_dynrag.agents.record import is_about
from langgraph_dynrag.agents.requests import is_placeholder, placeholder, question_of_request
from langgraph_dynrag.agents.watched_call import CallModel, Compute, Course, Given, Paused, Search, Task, watch_call
from langgraph_dynrag.clean_input import clean_all
from langgraph_dynrag.nodes.retrieve import asearch, search
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.retrieval.retriever import Retriever
from langgraph_dynrag.triggers.base import Trigger


class DynamicRetrievalState(AgentState[ResponseT]):
    """The agent's state, extended with the retrieval record of the current question."""

    dynamic_retrieval: NotRequired[Annotated[dict[str, Any], OmitFromInput]]
    """Plain data: `question`, `answer`, `sources`, `warnings`, `evidence`, `retrievals`, `rounds`, `trace`;
    `Trace.from_state(result["dynamic_retrieval"])` displays it. Absent if there was no answer to watch."""
    dynamic_retrieval_paused: NotRequired[Annotated[Any, UntrackedValue, PrivateStateAttr]]
    """A `Paused` while an answer is waiting to be rewritten."""


PAUSED = "dynamic_retrieval_paused"


class DynamicRetrievalMiddleware(AgentMiddleware[DynamicRetrievalState[ResponseT], ContextT, ResponseT]):
    """Watch an agent's final answers; where the model was unsure, retrieve evidence and have the answer rewritten.

    Tool calls are left alone. The evidence is added to the request, not to the conversation; it stays until the
    question is answered, so that a tool call in between does not lose it. The state records what happened, under
    `dynamic_retrieval`.

    Each model call, including calls for a query, is a separate pass of the agent's loop, so that limits, retries,
    fallbacks and summaries of other middleware apply to it, in any order. If a limit ends the agent before an answer is
    rewritten, the earlier answer is returned, and the record says so; a limit that raises an error still raises it.
    After-model hooks of other middleware see an empty message for an answer that is about to be rewritten. After-agent
    hooks of middleware listed behind this one may run once for each such pass.

    If a model reports no log-probabilities, for one answer or at all, the answer is not watched; this is recorded and
    logged.

    Args:
        retriever: Any LangChain retriever.
        trigger: When to retrieve; by default FLARE's trigger (a token's probability below 0.8). The model must provide
            the signals that the trigger needs: log-probabilities and entropy come from any model that reports them as
            OpenAI does, attention only from `LocalChatModel`.
        query: What to retrieve; by default the question followed by FLARE's query (the sentence without the tokens that
            the model was unsure of). Agents answer briefly, so the masked sentence alone may be too short.
        max_rounds: How often one answer may be rewritten.
        max_searches: Searches for one question, over all model calls.
        max_queries: Searches before each rewrite; an answer may be unsure in several places.
        on_missing_signals: Return the answer unwatched, or raise `SignalUnavailableError`.
        drafts: `"hidden"` keeps answers that may be discarded out of LangGraph's `messages` stream: an accepted answer
            is sent as a whole, and the last rewrite token by token. `"streamed"` sends all of them as they are written.
        **options: `k`, `query_tokens`, `context_tokens`, `with_passages`, `retrieval` (timeout and errors),
            `top_logprobs`, `carries_content`; see `WatchOptions`.

    Raises:
        ConfigurationError: If an option is unknown or out of range, or trigger and query formulator do not fit
            together.
        SignalUnavailableError: If the trigger or the formulator needs a signal that no message can carry.

    Example:
        >>> agent = create_agent(model, tools, middleware=[DynamicRetrievalMiddleware(retriever)])  # doctest: +SKIP
        >>> result = agent.invoke({"messages": [("user", "Who built the Patient Anna?")]})  # doctest: +SKIP
        >>> print(Trace.from_state(result["dynamic_retrieval"]))  # doctest: +SKIP
    """

    state_schema = DynamicRetrievalState  # type: ignore[assignment]

    def __init__(
        self,
        retriever: Retriever,
        *,
        trigger: Trigger | None = None,
        query: QueryFormulator | None = None,
        max_rounds: int = 1,
        max_searches: int = 6,
        max_queries: int = 3,
        on_missing_signals: Literal["continue", "raise"] = "continue",
        drafts: Literal["hidden", "streamed"] = "hidden",
        **options: Any,
    ) -> None:
        super().__init__()
        given = {name: part for name, part in (("trigger", trigger), ("query", query)) if part is not None}
        self.options = WatchOptions.of(
            retriever=retriever,
            max_rounds=max_rounds,
            max_searches=max_searches,
            max_queries=max_queries,
            on_missing_signals=on_missing_signals,
            drafts=drafts,
            **given,
            **options,
        )
        self.tools = []

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[ResponseT]],
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        """Call the model and judge its answer; if it is unsure, search and have the agent call the model again."""
        step = self._begun(request)
        while (task := step.task) is not None:
            try:
                outcome = self._done(task, handler)
            except Exception as error:  # noqa: BLE001 - the course decides how to handle it
                step.failed(error)
            else:
                step.forward(outcome)
        return step.result

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[ResponseT]]],
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        """Do the same as `wrap_model_call`, without blocking the event loop."""
        step = self._begun(request)
        while (task := step.task) is not None:
            try:
                outcome = await self._adone(task, handler)
            except Exception as error:  # noqa: BLE001 - the course decides how to handle it
                step.failed(error)
            else:
                step.forward(outcome)
        return step.result

    @hook_config(can_jump_to=["model"])
    def after_agent(self, state: Any, runtime: Runtime[ContextT]) -> dict[str, Any] | None:  # noqa: ARG002
        """Send the agent back to the model to rewrite an answer, or return the answer that was withheld."""
        return after_pass(state)

    @hook_config(can_jump_to=["model"])
    async def aafter_agent(self, state: Any, runtime: Runtime[ContextT]) -> dict[str, Any] | None:  # noqa: ARG002
        """Do the same as `after_agent`."""
        return after_pass(state)

    def _begun(self, request: ModelRequest[Any]) -> _Step:
        request = request.override(messages=clean_all(request.messages, "the conversation"))
        state: Mapping[str, Any] = request.state
        messages = [m for m in request.messages if not is_placeholder(m)]
        request = request if len(messages) == len(request.messages) else request.override(messages=messages)
        return _Step(watch_call(self.options, request, state.get("dynamic_retrieval"), state.get(PAUSED)))

    def _done(self, task: Task, handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        match task:
            case CallModel(request, hidden):
                with _unstreamed() if hidden else nullcontext():
                    return handler(request)
            case Search(state):
                return search(state, self.options, ensure_config())
            case Compute(function):
                return function()

    async def _adone(self, task: Task, handler: Callable[[ModelRequest[Any]], Awaitable[Any]]) -> Any:
        match task:
            case CallModel(request, hidden):
                with _unstreamed() if hidden else nullcontext():
                    return await handler(request)
            case Search(state):
                return await asearch(state, self.options, ensure_config())
            case Compute(function):
                return await asyncio.to_thread(function)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.options.trigger}, {self.options.query})"


class _Step:
    """A course, advanced to its next task."""

    def __init__(self, course: Course[Any]) -> None:
        self._course = course
        self.task: Task | None = None
        """None once the course is over."""
        self.result: Any = None
        self.forward(None)

    def forward(self, outcome: Any) -> None:
        """Resume the course with the outcome of the task."""
        self._go(lambda: self._course.send(outcome))

    def failed(self, error: Exception) -> None:
        """Resume the course with the error that the task raised; raise the error if the course does not handle it."""
        self._go(lambda: self._course.throw(error))

    def _go(self, advance: Callable[[], Task]) -> None:
        try:
            self.task = advance()
        except StopIteration as end:
            self.task, self.result = None, _outcome(end.value)


def _outcome(ended: Given | Paused) -> ExtendedModelResponse[Any]:
    """Convert the end of a pass to the response and state update for the agent."""
    if isinstance(ended, Paused):
        update = {"dynamic_retrieval": ended.record, PAUSED: ended}
        return ExtendedModelResponse(ModelResponse([placeholder()]), Command(update=update))
    update = {PAUSED: None}
    if ended.record is not None:
        update["dynamic_retrieval"] = ended.record
    return ExtendedModelResponse(ended.response, Command(update=update))


def after_pass(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state update for an agent whose loop has ended.

    If the loop ended with a withheld answer, the agent is sent back to the model. If something else ended it in the
    meantime, such as a limit on model calls, the withheld answer is returned, after the message about the limit.
    """
    messages = state["messages"]
    removed = [RemoveMessage(m.id) for m in messages if is_placeholder(m)]
    if messages and is_placeholder(messages[-1]):
        return {"messages": removed, "jump_to": "model"}
    paused = state.get(PAUSED)
    question = None if paused is None else question_of_request(clean_all(messages, "the conversation"))
    if paused is None or question is None or not is_about(paused.record, question):
        return {"messages": removed} if removed else None
    said = " ".join(messages[-1].text.split()) if isinstance(messages[-1], AIMessage) else ""
    reason = "the agent was ended before that" + (f" ({said})" if said else "")
    given = paused.given(reason)
    update = {
        "messages": [*removed, *given.response.result],
        "dynamic_retrieval": given.record,
        PAUSED: None,
    }
    if given.response.structured_response is not None:
        update["structured_response"] = given.response.structured_response
    return update


@contextmanager
def _unstreamed() -> Iterator[None]:
    """Keep model calls in this context out of LangGraph's `messages` stream, however the model is bound or wrapped."""
    config = ensure_config()
    token = var_child_runnable_config.set({**config, "tags": [*(config.get("tags") or []), TAG_NOSTREAM]})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
