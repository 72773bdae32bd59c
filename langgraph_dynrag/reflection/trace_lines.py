"""The events of judged continuations as lines to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TERMS = ("likelihood", "relevance", "support", "utility")


def trace_lines(event: Mapping[str, Any]) -> list[str]:
    """The lines of an event; none of one that this module does not know."""
    kind = event["type"]
    if kind == "reflection":
        return [_decision(d, alone=len(event["decisions"]) == 1) for d in event["decisions"]]
    if kind == "continuations":
        return [_candidate(c, event["weights"]) for c in event["candidates"]]
    if kind == "selection":
        return _selection(event)
    return []


def _decision(decision: Mapping[str, Any], *, alone: bool) -> str:
    how = "search" if decision["retrieve"] else "keep the passage" if decision["keep"] else "no passage"
    p = decision["probabilities"]
    told = f" ({', '.join(f'{name} {value:.2f}' for name, value in p.items())})" if p else ""
    which = "" if alone else f"hypothesis {decision['hypothesis'] + 1}: "
    return f"  {which}{decision['reason']}{told}: {how}"


def _candidate(c: Mapping[str, Any], weights: Mapping[str, float]) -> str:
    passage = c["passage"]
    by = "without a passage" if passage is None else f"with {passage['title'] or passage['id']}"
    terms = [
        f"{'' if name == 'likelihood' else f'{weights[name]:g} x '}{name} {c[name]:.2f}"
        for name in _TERMS
        if name == "likelihood" or c["probabilities"][name] is not None
    ]
    return f"    {c['total']:.2f} {by}: {c['text'].strip()!r} = {' + '.join(terms)}"


def _selection(event: Mapping[str, Any]) -> list[str]:
    beam, votes = event["beam"], _votes(event.get("vote"))
    if len(beam) < 2:
        return votes
    word = "best" if event["over"] else "kept"
    return votes + [f"  {word} {number}: {h['score']:.2f} {h['text'].strip()!r}" for number, h in enumerate(beam, 1)]


def _votes(vote: Mapping[str, Any] | None) -> list[str]:
    if vote is None:
        return []
    told = [f"{t['answer']} {t['score']:.2f} ({len(t['passages'])})" for t in vote["sums"]]
    told += [f"no answer of the set ({len(vote['blank'])})"] if vote["blank"] else []
    return [f"  votes: {', '.join(told)}"]
