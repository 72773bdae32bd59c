"""`conclude`: write the final answer from the passages alone, or in two ways, and return the more certain one.

This is the last node if the settings have a `final_answer`. `monitor` and `resume` route to it with the stage
`concluding` once the answer is written. If there is nothing to compare, or no time, that answer is returned as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.drafts.tasks import DraftTask, OnToken, ReplyCost
from langgraph_dynrag.events.events import Event, FinalAnswerEvent
from langgraph_dynrag.events.makers import with_cost
from langgraph_dynrag.nodes.generate import emit_token
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.reader import Reader
from langgraph_dynrag.seakr.final_answer import AnswerCandidate, AnswerChoice, Basis, SurerAnswer, surer
from langgraph_dynrag.seakr.uncertainty import total_cost, uncertainty
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.short_answer import (
    answer_start,
    closing_lead,
    find_phrase,
    is_blank,
    short_answer,
    through_answer,
)
from langgraph_dynrag.state import State, Update, spent
from langgraph_dynrag.steps.accept import budget_event, finish
from langgraph_dynrag.steps.no_text import with_an_answer
from langgraph_dynrag.steps.sample import sampler
from langgraph_dynrag.steps.task import draft_task, prompt_passages, rebuild
from langgraph_dynrag.streaming import emit
from rag_backbone.aio import in_own_thread
from rag_backbone.text.units import sentences


class Conclude(Node):
    """Writes the answer of a reader, or compares one written from the rationales with one from the documents."""

    node_name = "conclude"
    streams = False

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Write the reader's answer, or both answers and their samples, without blocking the event loop."""
        return await in_own_thread(self.run, state, settings, config)

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Write the reader's answer, or write and sample both answers and end with one of them."""
        if isinstance(settings.final_answer, Reader):
            return _read(state, settings, settings.final_answer, config)
        if not prompt_passages(state, settings)[0]:  # none found, none fits, or all of them are in the parameters
            return _as_written(state, settings, "no documents stand in the prompt")
        rebuild(state, settings)
        work = _Work(state, settings, config)
        try:
            choice = surer(work.from_rationales(), work.from_documents())
        except _TimeIsUpError:
            return _as_written(state, settings, "no time is left", work)
        return _chosen(state, settings, choice, work)


class _TimeIsUpError(Exception):
    """The budget's seconds are used up."""


class _Work:
    """Writes and samples the two answers, and adds up their cost."""

    def __init__(self, state: State, settings: Settings, config: RunnableConfig) -> None:
        self._settings = settings
        self._config = config
        self._deadline = time.monotonic() + settings.budgets.seconds - spent(state)
        # The answer is written, so tokens drafted beyond it and spans hidden from it are irrelevant here.
        self._state: State = {**state, "draft": None, "attention": None, "hidden": [], "token_ids": None}
        self.candidates: list[AnswerCandidate] = []
        self.sampled: list[Mapping[str, float]] = []
        self.written = ReplyCost(generated_tokens=0)

    def from_rationales(self) -> AnswerCandidate:
        """Write answer A: continue what was written before the short answer, without passages in the prompt."""
        begun = _rationales(self._state["text"], self._settings)
        state: State = {**self._state, "evidence": [], "text": begun, "stage": "closing"}
        limit = None if self._settings.prompt.answer_phrase is not None else self._settings.lookahead
        return self._candidate("rationales", state, begun + self._draft(state, limit=limit).text)

    def from_documents(self) -> AnswerCandidate:
        """Write answer B: reason about the question again, with the passages in the prompt."""
        state: State = {**self._state, "text": "", "stage": "drafting", "answer_tokens": 0}
        text = self._with_short_answer(state, self._reasoned(state))
        return self._candidate("documents", state, text)

    def read(self, reader: Reader) -> tuple[str, bool]:
        """Write an answer from the passages in the prompt alone.

        Returns:
            The answer, and whether the seconds ended its reasoning.
        """
        state: State = {**self._state, "text": "", "stage": "drafting", "answer_tokens": 0}
        text, late, phrase = "", False, self._settings.prompt.answer_phrase
        if reader.style == "cot" or phrase is None:
            try:
                text = self._reasoned(state, emit_token)
            except _TimeIsUpError:
                late = True
        self._deadline = math.inf  # a budget ends the reasoning, not the answer
        text = self._with_short_answer(state, text, emit_token)
        end = self._settings.prompt.answer_end
        return text if phrase is None else through_answer(text, phrase, end), late

    def _reasoned(self, state: State, on_token: OnToken | None = None) -> str:
        return self._draft(state, on_token, limit=self._settings.budgets.tokens, unit=Unit("all")).text

    def _with_short_answer(self, state: State, text: str, on_token: OnToken | None = None) -> str:
        """Return the text with a short answer, which the model is asked for explicitly if it is missing."""
        phrase = self._settings.prompt.answer_phrase
        if phrase is None or find_phrase(text, phrase) is not None:
            return text
        text = text.rstrip() + closing_lead(text.rstrip(), phrase)
        return text + self._draft({**state, "text": text, "stage": "closing"}, on_token).text

    def _draft(
        self, state: State, on_token: OnToken | None = None, *, limit: int | None = None, unit: Unit | None = None
    ) -> Draft:
        self._check_time()
        task: DraftTask = draft_task(state, self._settings)
        task = replace(
            task, limit=limit or task.limit, unit=unit or task.unit, needs=frozenset(), deadline=self._deadline
        )
        result = self._settings.generator.draft(task, self._config, on_token)
        if "forward_tokens" in result.cost:
            self.written["forward_tokens"] = self.written.get("forward_tokens", 0) + result.cost["forward_tokens"]
        if "cached_tokens" in result.cost:
            self.written["cached_tokens"] = self.written.get("cached_tokens", 0) + result.cost["cached_tokens"]
        self.written["generated_tokens"] += len(result.draft)
        if result.draft.ended == "deadline":
            raise _TimeIsUpError
        return result.draft

    def _candidate(self, basis: Basis, state: State, text: str) -> AnswerCandidate:
        self._check_time()
        choosing, prompt = _choosing(self._settings), self._settings.prompt
        ends = sampler(state, self._settings)(choosing.samples_of(basis))
        self.sampled.append(ends.cost)
        if prompt.answer_phrase is not None:
            text = through_answer(text, prompt.answer_phrase, prompt.answer_end)
        short = short_answer(text, prompt.answer_phrase, prompt.answer_end)
        candidate = AnswerCandidate(basis, text.strip(), short, uncertainty(ends, choosing.alpha))
        self.candidates.append(candidate)
        return candidate

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            raise _TimeIsUpError


def _read(state: State, settings: Settings, reader: Reader, config: RunnableConfig) -> Update:
    """End with the reader's answer; if it wrote none, with the text that was written before."""
    rebuild(state, settings)
    work = _Work(state, settings, config)
    text, late = work.read(reader)
    events: list[Event] = [budget_event("seconds", settings)] if late and state.get("budget_hit") != "seconds" else []
    prompt = settings.prompt
    start = None if prompt.answer_phrase is None else answer_start(text, prompt.answer_phrase)
    blank = is_blank(text if start is None else text[start:], prompt.answer_end)
    if blank:
        reason = "the reader wrote no answer"
        update = Update(text=state["text"], hidden=state.get("hidden") or [], token_ids=state.get("token_ids"))
    else:
        count = len(state.get("evidence") or [])
        reason = f"read again with the {count} passages collected"
        ids = settings.generator.token_ids(text)
        update = Update(text=text, hidden=[], token_ids=None if ids is None else list(ids), entropies=[])
    event = with_cost(_event("written" if blank else "documents", reason, None), work.written)
    emit(event)
    update["trace"] = [*events, event]
    if late:
        update["budget_hit"] = state.get("budget_hit") or "seconds"
    if blank:
        update = with_an_answer({**update, "replies": state.get("replies") or {}}, settings)
    return finish(state, update, settings)


def _rationales(text: str, settings: Settings) -> str:
    """Return the text through the answer phrase; if the prompt has no phrase, the text without its last sentence."""
    phrase = settings.prompt.answer_phrase
    if phrase is None:
        spans = sentences(text)
        return text[: spans[-1].start].rstrip() if spans else ""
    found = find_phrase(text, phrase)
    return text[: found.end()] if found else text.rstrip() + closing_lead(text.rstrip(), phrase)


def _chosen(state: State, settings: Settings, choice: AnswerChoice, work: _Work) -> Update:
    answer = choice.answer
    ids = settings.generator.token_ids(answer.text)
    event = _event(answer.basis, choice.reason, work)
    emit(event)
    # The entropies of the draft's words belong to the text that was replaced.
    update: Update = {
        "text": answer.text,
        "hidden": [],
        "token_ids": None if ids is None else list(ids),
        "entropies": [],
        "trace": [event],
    }
    return finish(state, update, settings)


def _as_written(state: State, settings: Settings, reason: str, work: _Work | None = None) -> Update:
    event = _event("written", reason, work)
    emit(event)
    events: list[Event] = [event]
    update = Update(text=state["text"], hidden=state.get("hidden") or [], token_ids=state.get("token_ids"))
    if work is not None and state.get("budget_hit") != "seconds":  # otherwise it was recorded when it was reached
        update["budget_hit"] = state.get("budget_hit") or "seconds"
        events.append(budget_event("seconds", settings))
    return finish(state, {**update, "trace": events}, settings)


def _event(taken: Basis | Literal["written"], reason: str, work: _Work | None) -> FinalAnswerEvent:
    event = FinalAnswerEvent(type="final_answer", taken=taken, reason=reason, candidates=[])
    if work is not None:
        event["candidates"] = [c.to_state() for c in work.candidates]
        event["cost"] = total_cost(work.sampled)
        event = with_cost(event, work.written)
    return event


def _choosing(settings: Settings) -> SurerAnswer:
    assert isinstance(settings.final_answer, SurerAnswer)  # the node is only built with one, and a reader has no choice
    return settings.final_answer
