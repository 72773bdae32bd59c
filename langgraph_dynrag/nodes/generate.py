"""`generate`: write until the unit is complete, with the signals that trigger and formulator read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.draft import Draft, Signal, Unit
from langgraph_dynrag.drafting import DraftResult, DraftTask
from langgraph_dynrag.event_makers import draft_event, with_cost
from langgraph_dynrag.events import InjectionEvent, TokenEvent, events_of
from langgraph_dynrag.evidence import Passage, within_budget
from langgraph_dynrag.injector import Placed
from langgraph_dynrag.nodes.insert import own_words
from langgraph_dynrag.nodes.no_text import counted, reply_events
from langgraph_dynrag.nodes.node import Node, State, Update, emit, spent
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import Replies
from rag_backbone.errors import ConfigurationError
from rag_backbone.own_thread import in_own_thread

_T = TypeVar("_T")
_FREE: frozenset[Signal] = frozenset({"logprob", "entropy"})


class Generate(Node):
    """Writes the next draft after the accepted text, under the evidence that is in the prompt."""

    node_name = "generate"

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Draft until the trigger's unit is complete."""
        _check_stage(state)
        where = _placed_again(state, settings)
        task = draft_task(state, settings, where)
        if _has_ended(task):
            return _update(state, settings, task, DraftResult(task.carried, task.carried_attention), where)
        result = settings.generator.draft(task, config, _emit_token)
        return _update(state, settings, task, result, where)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Draft until the trigger's unit is complete."""
        _check_stage(state)
        where = await _aside(settings, _placed_again, state, settings)
        task = draft_task(state, settings, where)
        if _has_ended(task):
            result = DraftResult(task.carried, task.carried_attention)
        else:
            result = await settings.generator.adraft(task, config, _emit_token)
        return _update(state, settings, task, result, where)


def draft_task(state: State, settings: Settings, where: Placed | None = None) -> DraftTask:
    """What to write next; also how a draft of this state was written, for recomputing its signals.

    Args:
        state: The state.
        settings: The graph's settings.
        where: The evidence in its places; None: it is placed now.
    """
    where = where or placed(state, settings)
    closing = state.get("stage") == "closing"
    carried = Draft.from_state(state.get("draft"))
    attention = state.get("attention")
    if "attention" in settings.needs and attention is None:
        carried = Draft()  # its rows are lost; writing the few tokens again is the simplest way to have them
    used = state.get("answer_tokens") or 0
    room = settings.budgets.closing_tokens if closing else settings.budgets.tokens - used
    passages, _ = prompt_passages(state, settings, where)
    prompt = settings.prompt
    ids = state.get("token_ids")
    left = settings.budgets.seconds - spent(state)
    replies = state.get("replies") or Replies()
    return DraftTask(
        question=state["question"],
        messages=prompt.messages(state["question"], passages),
        accepted=state.get("text") or "",
        accepted_ids=None if ids is None else tuple(ids),
        carried=carried,
        carried_attention=attention if len(carried) else None,
        unit=unit_now(state, settings),
        limit=max(1, min(room, settings.lookahead) - len(carried)),
        needs=_FREE & settings.generator.signals if closing else _needs(settings),
        stop=(*prompt.stop, "\n") if closing and prompt.answer_end is None else prompt.stop,
        answer_phrase=prompt.answer_phrase,
        answer_end=prompt.answer_end,
        own_words=own_words(state),
        # The short answer is always given time: a budget ends the reasoning, not the answer.
        closing=closing,
        reasoning_apart=settings.tag_format is None,  # else searches are written within it
        reasoning_tokens=max(settings.budgets.reasoning_tokens - replies.get("reasoning_tokens", 0), 0),
        reasons=replies.get("reasoning_tokens", 0) > 0,
        opens=replies.get("opens", getattr(settings.generator, "opens_reasoning", False)),
        restarts=replies.get("repetitions", 0) > 0,
        deadline=float("inf") if closing else time.monotonic() + left,
        seed=None if settings.seed is None else derived_seed(settings.seed, state["question"], used, len(carried)),
        adapters=where.adapters,
    )


def rebuild(state: State, settings: Settings) -> None:
    """Make adapters that `resume` had and that are gone since: a run may go on long after it was interrupted."""
    if settings.injector is None:
        return
    injections = events_of(state.get("trace") or [], InjectionEvent)
    had = set(injections[-1]["in_weights"]) if injections else set()
    settings.injector.prepare([p for p in state.get("evidence") or [] if p["id"] in had])


def _placed_again(state: State, settings: Settings) -> Placed:
    rebuild(state, settings)
    return placed(state, settings)


def placed(state: State, settings: Settings) -> Placed:
    """The evidence in its places."""
    evidence: list[Passage] = list(state.get("evidence") or [])
    if settings.injector is None:
        return Placed(evidence)
    return settings.injector.place(evidence, str(state.get("question") or ""))


def unit_now(state: State, settings: Settings) -> Unit:
    """The piece of text that is written and judged next."""
    if state.get("stage") == "closing":
        return Unit("sentence" if settings.prompt.answer_end is None else "all")
    unit = settings.trigger.unit
    if unit.kind == "all" and state.get("regenerating") and not settings.recheck:
        # Published code that drafts to the end keeps the first sentence that it writes with passages, and looks at the
        # rest again in the next draft.
        return Unit("sentence")
    return unit


def prompt_passages(state: State, settings: Settings, where: Placed | None = None) -> tuple[list[Passage], list[str]]:
    """The evidence that belongs in the prompt, as far as it fits there; and the ids of what had to be cut."""
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


async def _aside(settings: Settings, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function, in a thread where it asks the injector: placing loads weights, reads files and measures."""
    return function(*args) if settings.injector is None else await in_own_thread(function, *args)


def _needs(settings: Settings) -> frozenset[Signal]:
    # Probabilities and entropies colour the trace, so they are taken wherever they cost nothing.
    return settings.needs | (_FREE & settings.generator.signals)


def derived_seed(seed: int, question: str, used: int, carried: int) -> int:
    """A seed of its own for each draft, the same when a run is resumed."""
    digest = hashlib.sha256(f"{seed}\0{question}\0{used}\0{carried}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _check_stage(state: State) -> None:
    """Refuse to write on where the answer is written: in a graph of one's own it would never end."""
    if state.get("stage") == "concluding":
        raise ConfigurationError(
            'the answer is written and the stage is "concluding", which belongs to the node `conclude`. In a graph of '
            'your own lead there from `monitor` and `resume`, as to the end with "done"; or build it with '
            "final_answer=None."
        )


def _has_ended(task: DraftTask) -> bool:
    """Whether the model has ended its answer with what was carried over: there is nothing to write."""
    return len(task.carried) > 0 and task.carried.ended == "end"


def _update(state: State, settings: Settings, task: DraftTask, result: DraftResult, where: Placed) -> Update:
    draft = result.draft
    _, affected = prompt_passages(state, settings, where)
    evidence = [p["id"] for p in state.get("evidence") or []]
    event = with_cost(draft_event(draft, carried=len(task.carried), evidence=evidence), result.cost)
    if affected:
        event["shortened_or_left_out"] = affected
    if settings.injector is not None:
        event["in_weights"], event["in_prompt_because"] = list(where.in_weights), dict(where.reasons)
    if result.failures:
        event["failures"] = list(result.failures)
    return {
        "draft": draft.to_state(),
        "attention": result.attention,
        "replies": counted(state, result, asked=not _has_ended(task)),
        "trace": [*reply_events(result), event],
    }


def _emit_token(piece: str, logprob: float | None, entropy: float | None) -> None:
    emit(TokenEvent(type="token", text=piece, logprob=logprob, entropy=entropy))
