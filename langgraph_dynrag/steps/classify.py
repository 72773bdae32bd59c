"""Classifying how much retrieval a question needs. Used by `begin` if the settings have a `classifier`.

If the classifier fails, one retrieval is made, and the event records why.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any, get_args

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.tasks import Reply
from langgraph_dynrag.events.events import RouteEvent
from langgraph_dynrag.events.makers import with_cost
from langgraph_dynrag.events.parts import Complexity
from langgraph_dynrag.inputs.complexity import FALLBACK, AskComplexity, Classified, Classifier
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.steps.optional_call import OptionalCall
from rag_backbone.aio import in_own_thread
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError

_log = logging.getLogger(__name__)
_KNOWN = get_args(Complexity)


def classify(question: str, settings: Settings, config: RunnableConfig) -> RouteEvent | None:
    """Return the event that records a question's class; None if the settings have no classifier.

    Raises:
        ConfigurationError: If the classifier is asynchronous, or returns anything but a class.
    """
    how = settings.classifier
    if how is None:
        return None
    call = _Call(how)
    with call:
        if isinstance(how, AskComplexity):
            call.reply = settings.generator.reply(how.prompt(question), config, max_tokens=how.tokens)
        else:
            call.returned = _not_awaitable(how, how(question))
    return call.event()


async def aclassify(question: str, settings: Settings, config: RunnableConfig) -> RouteEvent | None:
    """Return what `classify` does, without blocking the event loop; the classifier may be asynchronous."""
    how = settings.classifier
    if how is None:
        return None
    call = _Call(how)
    with call:
        if isinstance(how, AskComplexity):
            call.reply = await settings.generator.areply(how.prompt(question), config, max_tokens=how.tokens)
        else:
            # A coroutine function returns at once; its coroutine runs here, in the loop that its clients belong to.
            returned: Any = await in_own_thread(how, question)
            call.returned = await returned if inspect.isawaitable(returned) else returned
    return call.event()


class _Call(OptionalCall):
    """The call and its outcome; one retrieval needs no class."""

    def __init__(self, how: AskComplexity | Classifier) -> None:
        super().__init__()
        self.reply: Reply | None = None
        self.returned: object = None
        self._how = how

    def event(self) -> RouteEvent:
        """Return the event that records the call, with the class."""
        how = self._how
        by = "the model" if isinstance(how, AskComplexity) else _name(how)
        if self._problem is not None:
            found = Classified(None, self._problem)
        elif isinstance(how, AskComplexity):
            found = how.read("" if self.reply is None else self.reply.text)
        else:
            found = _checked(how, self.returned)
        event = RouteEvent(type="route", route=found.route or FALLBACK, by=by, problem=found.problem)
        event = with_cost(event, None if self.reply is None else self.reply.cost)
        if self.reply is not None:
            event["reply"] = self.reply.text
        if found.problem is not None:
            event["warning"] = f"the question was not classified, and one retrieval was made: {found.problem}"
            _log.warning("%s", event["warning"])
        return event


def _name(how: Classifier) -> str:
    return str(getattr(how, "__name__", type(how).__name__))


def _checked(how: Classifier, returned: object) -> Classified:
    if isinstance(returned, str) and returned in _KNOWN:
        return Classified(returned)  # type: ignore[arg-type]
    raise ConfigurationError(
        f"classifier {_name(how)} returned {shown(returned)}; one of {', '.join(map(repr, _KNOWN))} is needed "
        "(Adaptive-RAG's labels A, B and C)"
    )


def _not_awaitable(how: Classifier, returned: object) -> object:
    if not inspect.isawaitable(returned):
        return returned
    if inspect.iscoroutine(returned):
        returned.close()
    raise ConfigurationError(
        f"classifier {_name(how)} is asynchronous, and the graph was run with invoke or stream; use ainvoke or astream"
    )
