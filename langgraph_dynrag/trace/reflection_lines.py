"""The events of judged continuations as human-readable lines."""

from __future__ import annotations

from collections.abc import Mapping

from langgraph_dynrag.events.parts import Continuation, HypothesisDecision
from langgraph_dynrag.events.selection_events import ContinuationsEvent, ReflectionEvent, SelectionEvent
from langgraph_dynrag.reflection.vote import BallotState


def decision_lines(event: ReflectionEvent) -> list[str]:
    """Return one line per hypothesis that tells how it continues."""
    return [_decision(d, alone=len(event["decisions"]) == 1) for d in event["decisions"]]


def continuation_lines(event: ContinuationsEvent) -> list[str]:
    """Return one line per continuation, with the terms of its score."""
    return [_candidate(c, event["weights"]) for c in event["candidates"]]


def selection_lines(event: SelectionEvent) -> list[str]:
    """Return the votes, and the hypotheses that were kept if there are several."""
    beam, votes = event["beam"], _votes(event.get("vote"))
    if len(beam) < 2:
        return votes
    word = "best" if event["over"] else "kept"
    return votes + [f"  {word} {number}: {h['score']:.2f} {h['text'].strip()!r}" for number, h in enumerate(beam, 1)]


def _decision(decision: HypothesisDecision, *, alone: bool) -> str:
    how = "search" if decision["retrieve"] else "keep the passage" if decision["keep"] else "no passage"
    p = decision["probabilities"]
    told = f" ({', '.join(f'{name} {value:.2f}' for name, value in p.items())})" if p else ""
    which = "" if alone else f"hypothesis {decision['hypothesis'] + 1}: "
    return f"  {which}{decision['reason']}{told}: {how}"


def _candidate(c: Continuation, weights: Mapping[str, float]) -> str:
    passage = c["passage"]
    by = "without a passage" if passage is None else f"with {passage['title'] or passage['id']}"
    judged = c["probabilities"]
    given = (
        ("relevance", c["relevance"], judged["relevance"]),
        ("support", c["support"], judged["support"]),
        ("utility", c["utility"], judged["utility"]),
    )
    terms = [f"likelihood {c['likelihood']:.2f}"]
    terms += [f"{weights[name]:g} x {name} {value:.2f}" for name, value, p in given if p is not None]
    return f"    {c['total']:.2f} {by}: {c['text'].strip()!r} = {' + '.join(terms)}"


def _votes(vote: BallotState | None) -> list[str]:
    if vote is None:
        return []
    told = [f"{t['answer']} {t['score']:.2f} ({len(t['passages'])})" for t in vote["sums"]]
    told += [f"no answer of the set ({len(vote['blank'])})"] if vote["blank"] else []
    return [f"  votes: {', '.join(told)}"]
