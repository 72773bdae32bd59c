"""Hidden states of a draft and of sampled continuations, for triggers and evidence selectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from langgraph_dynrag.drafts.draft import Draft, ReadStates
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleEnds, SampleSpec
from langgraph_dynrag.events.events import EvidenceChoiceEvent
from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.seakr.evidence_selection import SelectedEvidence
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State
from langgraph_dynrag.steps.task import derived_seed, draft_task
from langgraph_dynrag.streaming import emit
from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError


def sampler(state: State, settings: Settings) -> SampleEnds:
    """Return a function that samples continuations of the accepted text with the current evidence."""
    return lambda spec: _sampled(state, settings, spec)


def reader(state: State, settings: Settings, unit: Draft) -> ReadStates:
    """Return a function that reads the judged tokens after the accepted text, with the current evidence."""
    return lambda depths: settings.generator.hidden_states(draft_task({**state, "draft": None}, settings), unit, depths)


def select(state: State, settings: Settings, found: list[Passage]) -> tuple[list[Passage], list[EvidenceChoiceEvent]]:
    """Return the passages to use out of those found, and the event that records the choice."""
    if settings.evidence_selector is None or not found:
        return found, []
    kept = list(state.get("evidence") or [])

    def try_out(passages: Sequence[Passage], spec: SampleSpec) -> SampledEnds:
        settings.placing.prepare(passages, state["question"])
        return _sampled({**state, "evidence": list(passages)}, settings, spec)

    selection: object = settings.evidence_selector.select(found, kept, try_out)
    if not isinstance(selection, SelectedEvidence):
        raise ConfigurationError(
            f"{settings.evidence_selector!r}: select() returned {shown(selection)}; a SelectedEvidence of "
            "langgraph_dynrag.seakr.evidence_selection is needed, such as SelectedEvidence(passages, {'by': 'name'})"
        )
    event = cast("EvidenceChoiceEvent", {"type": "evidence_choice", **selection.record})
    emit(event)
    return selection.passages, [event]


def _sampled(state: State, settings: Settings, spec: SampleSpec) -> SampledEnds:
    # Always seeded, so that a trigger gives the same verdict on the same draft.
    used = state.get("answer_tokens") or 0
    seed = derived_seed(settings.seed or 0, state["question"], used, 0)
    return settings.generator.sample_ends(draft_task({**state, "draft": None}, settings), spec, seed)
