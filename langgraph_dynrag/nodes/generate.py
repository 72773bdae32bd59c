"""`generate`: write until the unit is complete, and record the signals that trigger and query formulator read."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask
from langgraph_dynrag.events.events import TokenEvent
from langgraph_dynrag.events.makers import draft_event, with_cost
from langgraph_dynrag.injection.injector import PlacedEvidence
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State, Update
from langgraph_dynrag.steps.no_text import counted, reply_events
from langgraph_dynrag.steps.task import draft_task, placed, prompt_passages, rebuild
from langgraph_dynrag.streaming import emit
from rag_backbone.aio import in_own_thread
from rag_backbone.errors import ConfigurationError


class Generate(Node):
    """Writes the next draft after the accepted text, with the evidence in place."""

    node_name = "generate"

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Draft until the trigger's unit is complete."""
        _check_stage(state)
        where = _placed_again(state, settings)
        task = draft_task(state, settings, where)
        if _has_ended(task):
            return _update(state, settings, task, DraftResult(task.carried, task.carried_attention), where)
        result = settings.generator.draft(task, config, emit_token)
        return _update(state, settings, task, result, where)

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Draft until the trigger's unit is complete."""
        _check_stage(state)
        if settings.injector is None:
            where = placed(state, settings)
        else:  # placing may load weights, read files and measure
            where = await in_own_thread(_placed_again, state, settings)
        task = draft_task(state, settings, where)
        if _has_ended(task):
            result = DraftResult(task.carried, task.carried_attention)
        else:
            result = await settings.generator.adraft(task, config, emit_token)
        return _update(state, settings, task, result, where)


def _placed_again(state: State, settings: Settings) -> PlacedEvidence:
    rebuild(state, settings)
    return placed(state, settings)


def _check_stage(state: State) -> None:
    """Raise if the answer is already written: in a custom graph without `conclude`, the loop would never end."""
    if state.get("stage") == "concluding":
        raise ConfigurationError(
            'the answer is written and the stage is "concluding", which the node `conclude` handles. In a custom '
            'graph, route to it from `monitor` and `resume`, just as "done" routes to the end; or build the graph '
            "with final_answer=None."
        )


def _has_ended(task: DraftTask) -> bool:
    """Return whether the model ended its answer within the carried tokens, so that there is nothing left to write."""
    return len(task.carried) > 0 and task.carried.ended == "end"


def _update(state: State, settings: Settings, task: DraftTask, result: DraftResult, where: PlacedEvidence) -> Update:
    draft = result.draft
    _, affected = prompt_passages(state, settings, where)
    evidence = [p["id"] for p in state.get("evidence") or []]
    event = with_cost(draft_event(draft, carried=len(task.carried), evidence=evidence), result.cost)
    if affected:
        event["shortened_or_left_out"] = affected
    if where.recorded:
        event["in_weights"], event["in_prompt_because"] = list(where.in_weights), dict(where.reasons)
    if result.failures:
        event["failures"] = list(result.failures)
    return {
        "draft": draft.to_state(),
        "attention": result.attention,
        "replies": counted(state, result, asked=not _has_ended(task)),
        "trace": [*reply_events(result), event],
    }


def emit_token(piece: str, logprob: float | None, entropy: float | None) -> None:
    """Send a token that the model wrote to the `custom` stream."""
    emit(TokenEvent(type="token", text=piece, logprob=logprob, entropy=entropy))
