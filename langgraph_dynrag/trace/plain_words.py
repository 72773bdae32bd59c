"""What happened in a run, in plain words: why it searched, why a draft was kept, and why the run ended.

Pure functions of drafts and events, which return HTML only where they quote a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph_dynrag.trace.draft_trace import DraftTrace
from langgraph_dynrag.trace.markup import counted, inline, number, plain, quoted
from langgraph_dynrag.trace.rounds import Round, wants_search

_SCORES = {
    "token probability": "probability",
    "RIND": "RIND score",
    "ETC": "change in the trend of the entropy",
    "self-aware uncertainty": "uncertainty of sampled continuations",
    "reflection": "wish to search",
    "learned": "probability that a search helps",
}
"""What the triggers' scores measure; a trigger that is not listed is called by its name."""
_DONE = ("answer", "kept")


def score_name(verdict: Mapping[str, Any]) -> str:
    """Return what the score of a verdict measures."""
    trigger = str(verdict.get("trigger") or "score")
    return _SCORES.get(trigger, trigger)


def fires_below(verdict: Mapping[str, Any]) -> bool:
    """Return whether the trigger fires at low scores, such as probabilities, rather than at high ones."""
    score, threshold = verdict.get("score"), verdict.get("threshold")
    if score is None or threshold is None:
        return False
    return bool(verdict.get("retrieve")) == (score < threshold)


def why_searched(of: Round) -> str:
    """Return a sentence that says why a round searched, as HTML."""
    if of.before is None:
        told = f": {plain(of.reason)}" if of.reason else ""
        return f"Before anything was written{told}." if of.reason else "Asked for by the method."
    if of.before.verdict is None:
        return "The record does not say why."
    return f"{_judged(of.before, begins=True)}."


def why_kept(draft: DraftTrace) -> str:
    """Return a sentence that says why a draft was accepted, as HTML; empty if the record does not say."""
    verdict = draft.verdict
    if verdict is None or wants_search(draft):
        return ""
    return f"Kept: {_judged(draft)}."


def _judged(draft: DraftTrace, *, begins: bool = False) -> str:
    """Return a verdict without a full stop; `begins` says that it begins a sentence."""
    verdict: Mapping[str, Any] = draft.verdict or {}
    score, threshold = verdict.get("score"), verdict.get("threshold")
    if score is None or threshold is None:
        reason = str(verdict.get("reason") or "no reason was recorded")
        reason = reason[0].upper() + reason[1:] if begins else reason
        fired = fired_at(draft)
        return f"{inline(reason)} at {quoted(fired)}" if fired else inline(reason)
    side = "below" if score < threshold else "above" if score > threshold else "equal to"
    mean = str(verdict.get("reason", "")).startswith("mean")
    which = "mean " if mean else "lowest " if verdict.get("trigger") == "token probability" else ""
    told = f"{which}{plain(score_name(verdict))} {number(score)}, {side} the threshold {number(threshold)}"
    if verdict.get("trigger") == "learned" and "(" in str(verdict.get("reason")):
        told += f" {inline(str(verdict['reason'])[str(verdict['reason']).index('(') :])}"  # the policy
    fired = fired_at(draft)
    if wants_search(draft):
        unsure = "Unsure" if begins else "unsure"
        told = f"{unsure} at {quoted(fired)}: {told}" if fired else f"{unsure}: {told}"
        scores, hits = verdict.get("scores") or (), verdict.get("hits") or ()
        if len(scores) > 1 and hits:
            told += f" ({len(hits)} of {counted(len(scores), 'token')})"
    return told


def fired_at(draft: DraftTrace) -> str:
    """Return the token at which the trigger fired; empty if it judges the draft as a whole."""
    by_token = draft.verdict is not None and bool(draft.verdict.get("scores"))
    return next((t.text.strip() for t in draft.tokens if t.fired), "") if by_token else ""


def is_finished(events: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the record has an answer."""
    return any(e.get("type") in _DONE for e in events)


def why_ended(events: Sequence[Mapping[str, Any]], answer: str) -> str:
    """Return why a run ended, without a full stop."""
    if not is_finished(events) and not answer:
        node = next((str(e["node"]) for e in reversed(events) if e.get("node")), "")
        return f"not finished; the record stops after {node}" if node else "not finished"
    if any(e.get("type") == "kept" for e in events):
        return "an earlier answer was kept"
    closing = next((i for i, e in enumerate(events) if e.get("type") == "closing"), None)
    asked = "" if closing is None else "; the short answer was then asked for"
    for event in reversed(events[:closing]):
        if event.get("type") == "budget" and event.get("which") in ("tokens", "seconds"):
            return budget_reached(event) + asked
        if event.get("type") == "draft":
            return _ENDS.get(str(event.get("ended")), "the answer was complete") + asked
    return f"the answer was complete{asked}"


def budget_reached(event: Mapping[str, Any]) -> str:
    """Return that a budget was used up, without a full stop."""
    which, limit = str(event.get("which")), event.get("limit")
    told = number(limit) if isinstance(limit, int | float) else "unknown size"
    noun = {"retrievals": "searches", "identical_retrievals": "repeated searches"}.get(which, which.replace("_", " "))
    return f"the budget of {told} {noun} was used up"


_ENDS = {
    "end": "the model ended its answer",
    "limit": "the length limit was reached",
    "deadline": "no time was left",
}


def method(events: Sequence[Mapping[str, Any]]) -> str:
    """Return the preset of a run, as far as the record says, with the trigger that judged its drafts."""
    preset = next((str(e["preset"]) for e in events if e.get("type") == "question" and e.get("preset")), "")
    verdict = next((e for e in events if e.get("type") == "verdict" and e.get("trigger")), {})
    trigger, threshold = str(verdict.get("trigger") or ""), verdict.get("threshold")
    limit = f", threshold {number(threshold)}" if threshold is not None else ""
    judged = f"{trigger}{limit}" if trigger.lower() != preset.lower() or limit else ""
    return f"{preset} ({judged})" if preset and judged else preset or judged or "not recorded"
