"""Building the task for the next draft from the state, with the evidence in place.

The same task also describes how an existing draft was written, for sampling and for recomputing signals.
"""

from __future__ import annotations

import hashlib
import time

from langgraph_dynrag.drafts.draft import Draft, Signal, Unit
from langgraph_dynrag.drafts.tasks import DraftTask
from langgraph_dynrag.events.events import InjectionEvent, events_of
from langgraph_dynrag.evidence import Passage, within_budget
from langgraph_dynrag.injection.injector import PlacedEvidence
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import Replies, State, spent
from langgraph_dynrag.steps.insert import own_words

_FREE: frozenset[Signal] = frozenset({"logprob", "entropy"})
"""Signals that colour the trace, so they are requested whenever they cost nothing."""


def draft_task(state: State, settings: Settings, where: PlacedEvidence | None = None) -> DraftTask:
    """Return the task for the next draft. It also describes how a draft of this state was written.

    Args:
        state: The state.
        settings: The graph's settings.
        where: The evidence and where it was placed; None: place it now.
    """
    where = where or placed(state, settings)
    closing = state.get("stage") == "closing"
    carried = Draft.from_state(state.get("draft"))
    attention = state.get("attention")
    if "attention" in settings.needs and attention is None:
        carried = Draft()  # its attention rows are lost; rewriting the few tokens is the simplest way to restore them
    used = state.get("answer_tokens") or 0
    room = settings.budgets.closing_tokens if closing else settings.budgets.tokens - used
    passages, _ = prompt_passages(state, settings, where)
    prompt = settings.prompt
    ids = state.get("token_ids")
    left = settings.budgets.seconds - spent(state)
    replies = state.get("replies") or Replies()
    free = _FREE & settings.generator.signals
    return DraftTask(
        question=state["question"],
        messages=prompt.messages(state["question"], passages),
        accepted=state.get("text") or "",
        accepted_ids=None if ids is None else tuple(ids),
        carried=carried,
        carried_attention=attention if len(carried) else None,
        unit=unit_now(state, settings),
        limit=max(1, min(room, settings.lookahead) - len(carried)),
        needs=free if closing else settings.needs | free,
        stop=(*prompt.stop, "\n") if closing and prompt.answer_end is None else prompt.stop,
        answer_phrase=prompt.answer_phrase,
        answer_end=prompt.answer_end,
        own_words=own_words(state),
        # The short answer always gets time: a budget ends the reasoning, not the answer.
        closing=closing,
        reasoning_apart=settings.tag_format is None,  # otherwise searches are written within the reasoning
        reasoning_tokens=max(settings.budgets.reasoning_tokens - replies.get("reasoning_tokens", 0), 0),
        reasons=replies.get("reasoning_tokens", 0) > 0,
        opens=replies.get("opens", settings.generator.opens_reasoning),
        restarts=replies.get("repetitions", 0) > 0,
        deadline=float("inf") if closing else time.monotonic() + left,
        seed=None if settings.seed is None else derived_seed(settings.seed, state["question"], used, len(carried)),
        adapters=where.adapters,
    )


def rebuild(state: State, settings: Settings) -> None:
    """Recreate adapters that `resume` placed and that have been lost since, as in a run resumed much later."""
    injections = events_of(state.get("trace") or [], InjectionEvent)
    had = set(injections[-1]["in_weights"]) if injections else set()
    settings.placing.prepare([p for p in state.get("evidence") or [] if p["id"] in had], state["question"])


def placed(state: State, settings: Settings) -> PlacedEvidence:
    """Return the evidence and where it is placed."""
    return settings.placing.place(list(state.get("evidence") or []), str(state.get("question") or ""))


def unit_now(state: State, settings: Settings) -> Unit:
    """Return the unit of text that is written and judged next."""
    if state.get("stage") == "closing":
        return Unit("sentence" if settings.prompt.answer_end is None else "all")
    unit = settings.trigger.unit
    if unit.kind == "all" and state.get("regenerating") and not settings.recheck:
        # Published code that drafts to the end keeps the first sentence that it writes with passages, and looks at the
        # rest again in the next draft.
        return Unit("sentence")
    return unit


def prompt_passages(
    state: State, settings: Settings, where: PlacedEvidence | None = None
) -> tuple[list[Passage], list[str]]:
    """Return the evidence for the prompt as far as it fits, and the ids of passages truncated or left out."""
    evidence = list((where or placed(state, settings)).in_prompt)
    if not evidence or settings.tag_format is not None:
        return [], []
    generator = settings.generator
    budget = settings.context_tokens
    if generator.context_window is not None:
        fixed = generator.prompt_tokens(settings.prompt.messages(state["question"], evidence[:1]))
        fixed -= generator.count_tokens(evidence[0]["text"])
        answer = settings.budgets.tokens + settings.budgets.closing_tokens
        budget = min(budget, generator.context_window - fixed - answer)
    return within_budget(evidence, max(budget, 0), generator.count_tokens)


def derived_seed(seed: int, question: str, used: int, carried: int) -> int:
    """Return a seed that is specific to a draft, and the same when a run is resumed."""
    digest = hashlib.sha256(f"{seed}\0{question}\0{used}\0{carried}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
