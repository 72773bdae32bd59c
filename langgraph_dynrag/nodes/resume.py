"""`resume`: cut the draft back to where information was needed, put the evidence in place, and continue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.drafts.draft import Draft, Verdict, VerdictState
from langgraph_dynrag.events.events import Event, EvidenceChoiceEvent, InjectionEvent, ResumeEvent
from langgraph_dynrag.evidence import Passage, Source, distinct
from langgraph_dynrag.nodes.node import Node
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import AnyState, State, Update
from langgraph_dynrag.steps.accept import accept, after_acceptance, force_answer
from langgraph_dynrag.steps.digest import Digest, acondense, condense
from langgraph_dynrag.steps.exchange import with_results
from langgraph_dynrag.steps.sample import select
from langgraph_dynrag.streaming import emit
from rag_backbone.aio import in_own_thread
from rag_backbone.text.units import sentences


class Resume(Node):
    """Puts the evidence in place and decides which tokens of the draft to keep."""

    node_name = "resume"

    async def arun(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Cut the draft and put the evidence in place. Slow work (adapters, samples) does not block the event loop."""
        found, chosen = list(state.get("found") or []), list[EvidenceChoiceEvent]()
        if settings.evidence_selector is not None:
            found, chosen = await in_own_thread(select, state, settings, found)
        digest = await acondense(state, settings, found, config)
        if settings.injector is None:
            return resumed(state, settings, found, chosen, digest)
        return await in_own_thread(resumed, state, settings, found, chosen, digest)

    def run(self, state: State, settings: Settings, config: RunnableConfig) -> Update:
        """Cut the draft, put the evidence in place, and return to `generate`."""
        found, chosen = select(state, settings, list(state.get("found") or []))
        return resumed(state, settings, found, chosen, condense(state, settings, found, config))


def resumed(
    state: State, settings: Settings, found: list[Passage], chosen: list[EvidenceChoiceEvent], digest: Digest
) -> Update:
    """Return the update with the evidence in place.

    Args:
        state: The state.
        settings: The graph's settings.
        found: The passages to use.
        chosen: The events that record how they were chosen.
        digest: The model's digest of the passages.
    """
    draft = Draft.from_state(state.get("draft"))
    judged = state.get("judged") or 0
    found, left_out = _within_limit(state, found, settings)
    # If nothing was found, there is nothing to rewrite the draft with, so it stays.
    kept = kept_tokens(draft[:judged], state.get("verdict"), settings) if found else judged
    # Discarded tokens do not tell how the text continues, not even whether a sentence was complete.
    remaining = replace(draft[:kept], ended="unit") if kept < judged else draft
    update = accept(state, settings, remaining, kept, keep_rest=not (found or settings.tag_format is not None))
    update, full = with_results(state, update, settings, found, digest)
    if settings.tag_format is not None:  # the text continues after the inserted block
        remaining = replace(remaining, ended="unit")
    evidence = _evidence(state, found, settings)
    event = ResumeEvent(
        type="resume",
        kept=draft[:kept].text,
        kept_tokens=kept,
        discarded=draft[kept:judged].text,
        discarded_tokens=max(judged - kept, 0),
        evidence=[p["id"] for p in evidence],
    )
    if left_out:
        event["left_out"] = left_out
    emit(event)
    events: list[Event] = [
        *chosen,
        *digest.events,
        event,
        *update.get("trace", []),
        *_injected(evidence, str(state.get("question") or ""), settings),
    ]
    update |= {
        "evidence": evidence,
        "found": [],
        # Passages that did not help are not sources of the answer.
        "sources": sources_with(state.get("sources") or [], found if digest.helpful else []),
        "regenerating": bool(found) and kept < judged,
        "trace": events,
    }
    if full:
        return force_answer(state, update, settings)
    return after_acceptance(state, update, settings, remaining, kept)


def after_resume(state: AnyState) -> str:
    """Route to `generate`, unless the kept tokens ended the answer."""
    return {"done": "__end__", "concluding": "conclude"}.get(state["stage"], "generate")


def kept_tokens(unit: Draft, verdict: VerdictState | None, settings: Settings) -> int:
    """Return how many of the judged tokens to keep.

    White space before a sentence that is written again is written again too, because most tokenizers join it to the
    first word.
    """
    position = None if verdict is None else Verdict.from_state(verdict).position
    if position is None or settings.resume_at == "end":
        return len(unit)
    if settings.resume_at == "token":
        return position
    word = unit.word_of_token[position]
    at = unit.spans[position].start
    if settings.resume_at == "word":
        return position if word is None else unit.tokens_of_word(word)[0]
    first = min(len(unit.text) - len(unit.text[at:].lstrip()), len(unit.text) - 1)
    start = next((s.start for s in sentences(unit.text) if s.start <= first < s.end), 0)
    kept = sum(1 for span in unit.spans if span.end <= start)
    while kept and not unit.pieces[kept - 1].strip():
        kept -= 1
    return kept


def _within_limit(state: State, found: list[Passage], settings: Settings) -> tuple[list[Passage], list[str]]:
    """Return the passages found that may join those in the prompt, and the ids of the others."""
    if settings.max_passages is None:
        return found, []
    beyond = [p["id"] for p in distinct([*(state.get("evidence") or []), *found])[settings.max_passages :]]
    return [p for p in found if p["id"] not in beyond], beyond


def _evidence(state: State, found: list[Passage], settings: Settings) -> list[Passage]:
    present = list(state.get("evidence") or [])
    if not found:
        return present
    return distinct([*present, *found]) if settings.evidence_life == "accumulated" else found


def _injected(evidence: list[Passage], question: str, settings: Settings) -> list[InjectionEvent]:
    """Return the record of the evidence that went into the parameters, creating missing adapters first."""
    if not evidence:
        return []
    done = settings.placing.prepare(evidence, question)
    where = settings.placing.place(evidence, question)
    if not where.recorded:
        return []
    because = {id_: done["failed"].get(id_, reason) for id_, reason in where.reasons.items()}
    event = InjectionEvent(
        type="injection",
        mode=settings.placing.injection,
        in_weights=list(where.in_weights),
        in_prompt_because=because,
        trained=done["trained"],
        translated=done["translated"],
        preparing_seconds=done["seconds"],
        strength=where.strength,
        forgetting=where.forgetting,
        left_out=dict(where.left_out),
        conflicts=where.conflicts,
        routing=where.routing,
        training=done.get("training"),
    )
    emit(event)
    return [event]


def sources_with(numbered: Sequence[Source], found: Sequence[Passage]) -> list[Source]:
    """Return the numbered sources, extended by passages that are not among them yet."""
    sources = list(numbered)
    known = {s["id"] for s in sources}
    for p in found:
        if p["id"] not in known:
            sources.append(
                Source(
                    number=len(sources) + 1,
                    id=p["id"],
                    text=p["text"],
                    title=p["title"],
                    source=p["source"],
                    score=p["score"],
                    query=str(p["metadata"].get("query", "")),
                )
            )
    return sources
