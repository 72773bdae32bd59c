"""One draft of a remote model, over as many attempts as it takes: what a broken attempt wrote stays."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from langchain_core.messages import BaseMessage

from langgraph_dynrag.drafts.collector import Collector
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask, OnToken
from langgraph_dynrag.drafts.token_alignment import Seam

logger = logging.getLogger(__name__)


class AttemptTask(Protocol):
    """What is asked for the draft."""

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether its replies begin within a block of reasoning; None: not known."""
        ...

    def note_reasoning(self, opens: bool) -> None:
        """Take note of what a reply showed of that."""
        ...

    def continued(self, task: DraftTask) -> tuple[Sequence[BaseMessage], dict[str, Any], Seam]:
        """The messages of a request, further options, and how the reply is joined to what was written."""
        ...


class Attempts:
    """What was written so far, and what is left to write.

    Args:
        generator: Whose draft it is.
        task: The whole draft.
        on_token: Called with each token.
    """

    def __init__(self, generator: AttemptTask, task: DraftTask, on_token: OnToken | None) -> None:
        self._asked = generator
        self._whole = task
        self._on_token = on_token
        self._failures: list[str] = []
        self._requests = 0
        self.task = task
        """What is left."""
        self.messages: list[BaseMessage] = []
        self.extra: dict[str, Any] = {}
        self._rule = StopAtUnit(task)
        self._collector = Collector(task, self._rule, on_token, watched=True)

    @property
    def continues(self) -> bool:
        """Whether something is written already."""
        return bool((self.task.accepted + self.task.carried.text).strip())

    def begin(self) -> None:
        """Begin an attempt at what is left."""
        messages, self.extra, seam = self._asked.continued(self.task)
        self.messages = list(messages)
        self._rule = StopAtUnit(self.task)
        self._collector = Collector(self.task, self._rule, self._on_token, seam, watched=True)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """One attempt; the error that ends it is raised, unless nothing is left to write."""
        self._requests += 1
        try:
            yield
        except Exception as error:
            self._failures.append(type(error).__name__)
            logger.warning("attempt %d at a draft failed (%s: %s)", self._requests, type(error).__name__, error)
            if not self.keep():
                raise

    def push(self, chunk: Any) -> bool:
        """Take a chunk; whether the draft has gone far enough."""
        self._collector.push(chunk)
        return self._rule.ended is not None

    def keep(self) -> bool:
        """Keep what a broken attempt wrote, for the next one to go on from; whether there is nothing left to write."""
        draft = self._collector.result().draft
        left = self.task.limit - (len(draft) - len(self.task.carried))
        if left < 1:
            self._rule.ended = "limit"
            return True
        self.task = replace(self.task, carried=replace(draft, ended="unit"), carried_attention=None, limit=left)
        return False

    def result(self) -> DraftResult:
        """The whole draft, and what it took."""
        found = self._collector.result()
        afresh = not (self._whole.accepted + self._whole.carried.text).strip()
        # A reply that was left or cut off before its end may have been about to close a block.
        told = found.opens if found.opens or found.draft.ended == "end" else None
        if told is not None and afresh and self._asked.opens_reasoning is None:
            self._asked.note_reasoning(told)
        cost = found.cost.copy()
        if self._requests > 1:
            cost["retries"] = self._requests - 1
        return replace(found, cost=cost, failures=tuple(self._failures))
