"""Rewriting a question so that it stands alone without the conversation before it. Used by `begin`.

If anything goes wrong, the question is used as it was asked, and the event records why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage

from langgraph_dynrag.drafts.tasks import Reply
from langgraph_dynrag.events.events import CondensedEvent
from langgraph_dynrag.events.makers import with_cost
from langgraph_dynrag.inputs.condensing import Condensed, Condenser
from langgraph_dynrag.inputs.conversation import Turn, earlier_turns, fitting
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.steps.optional_call import OptionalCall

REPLY_TOKENS = 256
"""Maximum number of tokens of the model's reply."""
_HISTORY_TOKENS = 1024
_log = logging.getLogger(__name__)


class Condensing(OptionalCall):
    """The model call and its outcome; the question can be used without it."""

    def __init__(self, how: Condenser, question: str, turns: Sequence[Turn], shown: Sequence[Turn]) -> None:
        self.prompt = how.prompt(shown, question) if shown else None
        self.reply: Reply | None = None
        self._how, self._question, self._turns, self._shown = how, question, turns, shown
        super().__init__(None if shown else "the conversation does not fit into the context window")

    def event(self) -> CondensedEvent:
        """Return the event that records the call, with the question to answer."""
        found = Condensed(None, self._problem)
        if self.reply is not None:
            found = self._how.read(self.reply.text, self._question)
            if found.question is None and not self.reply.text.strip():
                found = Condensed(None, "the reply is empty or contains only reasoning")
        problem = None if found.question else found.problem or "the reply contains no question"
        event = CondensedEvent(
            type="condensed",
            asked=self._question,
            question=found.question or self._question,
            turns=len(self._turns),
            left_out=len(self._turns) - len(self._shown),
            problem=problem,
        )
        event = with_cost(event, None if self.reply is None else self.reply.cost)
        if problem is not None:
            event["warning"] = f"the question was used without the conversation before it: {problem}"
            _log.warning("%s", event["warning"])
        return event


def prepared(question: str, earlier: Sequence[BaseMessage], settings: Settings) -> Condensing | None:
    """Return the call to make; None if the settings do not ask for it, or nothing was said before."""
    how = settings.condense
    turns = [] if how is None else earlier_turns(earlier)
    if how is None or not turns:
        return None
    generator, budget = settings.generator, _HISTORY_TOKENS
    if generator.context_window is not None:
        fixed = generator.prompt_tokens([HumanMessage(how.prompt([], question))])
        budget = min(budget, generator.context_window - fixed - REPLY_TOKENS - 8 * len(turns))
    return Condensing(how, question, turns, fitting(turns, max(budget, 0), generator.count_tokens))
