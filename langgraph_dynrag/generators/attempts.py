"""Generate one draft of a remote model over several attempts, keeping what failed attempts wrote."""

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
    """The generator as `Attempts` needs it."""

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether replies begin inside a reasoning block; None if not known."""
        ...

    def note_reasoning(self, opens: bool) -> None:
        """Record whether a reply began inside a reasoning block."""
        ...

    def continued(self, task: DraftTask) -> tuple[Sequence[BaseMessage], dict[str, Any], Seam]:
        """Return the messages of a request, further options, and how the reply is joined to the written text."""
        ...


class Attempts:
    """Tracks what a draft's attempts have written and what is left to write.

    Args:
        generator: The generator that is asked for the draft.
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
        """The part of the draft that is left to write."""
        self.messages: list[BaseMessage] = []
        self.extra: dict[str, Any] = {}
        self._rule = StopAtUnit(task)
        self._collector = Collector(task, self._rule, on_token, watched=True)

    @property
    def continues(self) -> bool:
        """Whether some text is already written."""
        return bool((self.task.accepted + self.task.carried.text).strip())

    def begin(self) -> None:
        """Start an attempt at the part that is left."""
        messages, self.extra, seam = self._asked.continued(self.task)
        self.messages = list(messages)
        self._rule = StopAtUnit(self.task)
        self._collector = Collector(self.task, self._rule, self._on_token, seam, watched=True)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch one attempt. An error that ends it is raised unless nothing is left to write."""
        self._requests += 1
        try:
            yield
        except Exception as error:
            self._failures.append(type(error).__name__)
            logger.warning("draft attempt %d failed (%s: %s)", self._requests, type(error).__name__, error)
            if not self.keep():
                raise

    def push(self, chunk: Any) -> bool:
        """Add a chunk and return whether the draft is complete."""
        self._collector.push(chunk)
        return self._rule.ended is not None

    def keep(self) -> bool:
        """Keep what a failed attempt wrote, so that the next one continues it, and return whether nothing is left."""
        draft = self._collector.result().draft
        left = self.task.limit - (len(draft) - len(self.task.carried))
        if left < 1:
            self._rule.ended = "limit"
            return True
        self.task = replace(self.task, carried=replace(draft, ended="unit"), carried_attention=None, limit=left)
        return False

    def result(self) -> DraftResult:
        """Return the whole draft and its cost."""
        found = self._collector.result()
        afresh = not (self._whole.accepted + self._whole.carried.text).strip()
        # A reply that was abandoned or cut off might still have closed a reasoning block.
        told = found.opens if found.opens or found.draft.ended == "end" else None
        if told is not None and afresh and self._asked.opens_reasoning is None:
            self._asked.note_reasoning(told)
        cost = found.cost.copy()
        if self._requests > 1:
            cost["retries"] = self._requests - 1
        return replace(found, cost=cost, failures=tuple(self._failures))
