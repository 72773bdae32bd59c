"""Each kind of event as human-readable lines of a trace.

Drafts are handled in `langgraph_dynrag.trace.trace`, which joins their tokens with what happened to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langgraph_dynrag.events import events as ev
from langgraph_dynrag.events.parts import Recorded
from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.seakr.final_answer import AnswerCandidateState
from langgraph_dynrag.trace.reflection_lines import continuation_lines, decision_lines, selection_lines


def event_lines(event: Mapping[str, Any]) -> list[str]:
    """Return the lines of an event; its fields if this version does not know its kind, or expects other fields."""
    try:
        return _LINES.get(event.get("type", ""), _unknown)(event)
    except (KeyError, TypeError, AttributeError):
        return [f"  {event.get('type')}, in another version's form: {_short(str(_fields(event)))}"]


def _condensed(event: ev.CondensedEvent) -> list[str]:
    taken = f"taken as it is: {event['problem']}" if event["problem"] else f"condensed to: {event['question']}"
    lines = [f"  asked with {event['turns']} earlier turns: {event['asked']}", f"    {taken}"]
    return lines + ([f"    {event['left_out']} turns did not fit"] if event["left_out"] else [])


def _route(event: ev.RouteEvent) -> list[str]:
    told = {"none": "no retrieval", "single": "one retrieval", "multi": "several retrievals"}
    why = f"not classified: {event['problem']}" if event["problem"] else f"classified by {event['by']}"
    return [f"  {told.get(event['route'], event['route'])}, {why}"]


def _not_text(event: ev.NotTextEvent) -> list[str]:
    return [f"  {event['warning']}"]


def _reasoning(event: ev.ReasoningEvent) -> list[str]:
    return [f"  reasoned ({event['tokens']} tokens): {_short(event['text']) or 'the text was not passed on'}"]


def _repetition(event: ev.RepetitionEvent) -> list[str]:
    return [f"  left out, as it repeats the text before: {_short(event['text'])}"]


def _no_text(event: ev.NoTextEvent) -> list[str]:
    return [f"  a reply brought no new text ({event['problem']}): {event['outcome']}"]


def _budget(event: ev.BudgetEvent) -> list[str]:
    return [f"  budget reached: {event['which']} ({event['limit']:g})"]


def _retrieval(event: ev.RetrievalEvent) -> list[str]:
    titles = [f"{name_of(d)}{'' if d['new'] else ' (seen)'}" for d in event["documents"]]
    found = "; ".join(titles) or (f"nothing, the search failed: {event['error']}" if event["error"] else "nothing")
    return [f"  searched: {event['query']}", f"    found: {found}"]


def _reformulation(event: ev.ReformulationEvent) -> list[str]:
    if event.get("rewrite"):
        return [f"  {event['problem']}: searching again: {event['query']}"]
    return [f"  {event['problem']}: {event['outcome']}"] if event["problem"] else []


def _evidence_choice(event: ev.EvidenceChoiceEvent) -> list[str]:
    if "candidates" not in event:  # a custom selector with its own kind of record
        return [f"    chosen: {_short(str(_fields(event)))}"]
    names = {c["id"]: c["title"] or c["id"] for c in event["candidates"]}
    kept = "; ".join(names[id_] for id_ in event["kept"]) or "nothing new"
    return [f"    kept, as the {event['by']} of {len(names)}: {kept}"]


def _digest(event: ev.DigestEvent) -> list[str]:
    told = f"inserted as found: {event['problem']}" if event["text"] is None else f"condensed: {event['text']}"
    return [f"    {told}"]


def _resume(event: ev.ResumeEvent) -> list[str]:
    left_out = event.get("left_out")
    return [f"    {len(left_out)} left out, as no more passages may be collected"] if left_out else []


def _injection(event: ev.InjectionEvent) -> list[str]:
    # Traces of earlier versions lack `forgetting`, `left_out`, `conflicts`, `routing` and `training`.
    made = [
        f"{count} {how}" for how, count in (("trained", event["trained"]), ("translated", event["translated"])) if count
    ]
    if event.get("forgetting") is not None:
        made.append(f"strength {event['strength']:.2g}, forgets {event['forgetting']:.2g} nats")
    lines = [f"  into the weights: {len(event['in_weights'])} passages" + (f" ({', '.join(made)})" if made else "")]
    if training := event.get("training"):
        waited, guess = event["preparing_seconds"], training["estimated"]
        lines.append(f"    trained first: {', '.join(training['documents'])} ({waited:.0f} s, estimated {guess:.0f} s)")
    if routing := event.get("routing"):
        scored = ", ".join(
            f"{id_} {'not judged' if score is None else f'{score:.3g}'}" for id_, score in routing.items()
        )
        lines.append(f"    routed by score: {scored}")
    lines += [f"    {id_} stays in the prompt: {why}" for id_, why in event["in_prompt_because"].items()]
    lines += [f"    {id_} is left out: {why}" for id_, why in event.get("left_out", {}).items()]
    pairs = (event.get("conflicts") or {}).get("pairs", [])
    return lines + [f"    contradiction, {p['nats']:.1f} nats: {' / '.join(p['answers'])}" for p in pairs]


def _inserted(event: ev.InsertedEvent) -> list[str]:
    return [f"  told the model ({event['problem']}): {' '.join(event['text'].split())}"] if event["problem"] else []


def _closing(event: ev.ClosingEvent) -> list[str]:  # noqa: ARG001
    return ["  asked outright for the short answer"]


def _final_answer(event: ev.FinalAnswerEvent) -> list[str]:
    lines = [f"  answer from the {c['basis']}: {c['short_answer']!r}, {_score(c)}" for c in event["candidates"]]
    which = "the answer stays as it was written" if event["taken"] == "written" else f"taken from the {event['taken']}"
    return [*lines, f"  {which}: {event['reason']}"]


def _score(candidate: AnswerCandidateState) -> str:
    value = candidate["uncertainty"]
    return "every sample empty" if value is None else f"uncertainty {value:.3f}"


def _kept(event: ev.KeptEvent) -> list[str]:
    return [f"  the answer before was kept: {event['reason']}"]


def _degraded(event: ev.DegradedEvent) -> list[str]:
    return [f"  not watched: {event['reason']}"]


def _nothing(event: Mapping[str, Any]) -> list[str]:  # noqa: ARG001
    return []


def _unknown(event: Mapping[str, Any]) -> list[str]:
    kind = event.get("type", "an event without a type")
    return [f"  {kind}, which this version of dynprag does not know: {_short(str(_fields(event)))}"]


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an event that describe what happened."""
    return {name: value for name, value in event.items() if name not in ("type", *Recorded.__annotations__)}


def _short(text: str, characters: int = 300) -> str:
    """Return a text in one line, truncated to `characters`."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[:characters]} [{len(line) - characters} more characters]"


_LINES: Mapping[str, Callable[[Any], list[str]]] = {
    "condensed": _condensed,
    "route": _route,
    "resume": _resume,
    "not_text": _not_text,
    "reasoning": _reasoning,
    "repetition": _repetition,
    "no_text": _no_text,
    "budget": _budget,
    "retrieval": _retrieval,
    "reformulation": _reformulation,
    "evidence_choice": _evidence_choice,
    "digest": _digest,
    "injection": _injection,
    "inserted": _inserted,
    "reflection": decision_lines,
    "continuations": continuation_lines,
    "selection": selection_lines,
    "closing": _closing,
    "final_answer": _final_answer,
    "kept": _kept,
    "degraded": _degraded,
    # These are shown with the drafts, or in the header and footer of a trace.
    **dict.fromkeys(
        ("question", "draft", "calls", "verdict", "accepted", "query", "judgement", "exemplar", "answer"),
        _nothing,
    ),
}
