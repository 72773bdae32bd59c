"""The rounds of a run as HTML: why it searched, what it found, what changed, and what was written then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.trace.changes import changes, marked
from langgraph_dynrag.trace.draft_trace import DraftTrace
from langgraph_dynrag.trace.lines import event_lines
from langgraph_dynrag.trace.markup import Allowance, block, counted, fold, inline, number, plain, quoted, seconds
from langgraph_dynrag.trace.plain_words import budget_reached, fired_at, why_kept, why_searched
from langgraph_dynrag.trace.rounds import Round
from langgraph_dynrag.trace.searches import Searches
from langgraph_dynrag.trace.token_strip import NO_SCORES, token_strip

LEGEND = (
    '<p class="meta legend-of-marks"><del>Struck through</del>: discarded. <ins>Underlined</ins>: written instead. '
    "Unmarked: kept. Among the tokens, a frame marks the one that triggered a search, and italics those drafted beyond "
    "the judged text.</p>"
)
"""What the marks in the rounds mean."""
_LONG = 12
"""Rounds of a run from which on most of them are folded, and only drafts that led to a search have token scores."""
_OPEN = 3
"""Rounds of a long run that are unfolded."""
_NOTED = ("reformulation", "budget", "inserted", "closing", "kept", "degraded", "repetition", "no_text")


class RoundView:
    """Renders the rounds of a run.

    Args:
        rounds: The rounds.
    """

    def __init__(self, rounds: Sequence[Round]) -> None:
        self._rounds = rounds
        self._long = len(rounds) > _LONG
        self._tokens = Allowance(1_000)
        self._searches = Searches(Allowance(40_000))
        self._text = Allowance(80_000)
        self._without_scores = False
        self.names = list(_names(rounds))
        """Names of the rounds."""

    def html(self) -> Iterator[str]:
        """Yield each round as HTML."""
        for at, (name, each) in enumerate(zip(self.names, self._rounds, strict=True)):
            summary = f'<h4>{name}</h4> <span class="meta">{_summary(each)}</span>'
            yield fold(summary, self._body(each), is_open=not self._long or at < _OPEN, style="round")

    def _body(self, of: Round) -> str:
        parts = []
        if of.asks:
            parts.append(f'<p class="why"><b>Why:</b> {why_searched(of)}</p>')
        if of.before is not None:
            parts += [_failures(of.before), self._strip(of.before)]
            if not of.discards:
                parts.append(self._written("Written before the search", of.before))
        if of.queries and not of.searches:
            parts += [f'<p class="label">Query, not searched for</p>{block(q, style="query")}' for q in of.queries]
        regenerated, replaced = of.regenerated, False
        for part in of.story:
            if not isinstance(part, DraftTrace):
                parts.append(self._event(part))
            elif part is regenerated and not replaced:
                replaced = True
                parts.append(self._change(of, part))
            else:
                parts.append(self._draft(part))
        if of.discards and regenerated is None and of.before is not None:
            parts.append(self._said("Discarded", of.before.having("discarded")))
        return "".join(parts)

    def _strip(self, draft: DraftTrace) -> str:
        """Return a draft's scores; that the model reports none is only said once."""
        shown = token_strip(draft, self._tokens, table=not self._long)
        if shown != NO_SCORES:
            return shown
        said, self._without_scores = self._without_scores, True
        return "" if said else shown

    def _said(self, label: str, text: str) -> str:
        if not text.strip():
            return ""
        return f'<p class="label">{label}</p>{block(self._text.cut(text.strip(), 8000))}'

    def _change(self, of: Round, after: DraftTrace) -> str:
        assert of.before is not None
        kept = of.before.having("accepted")
        old = (kept + of.before.having("discarded")).strip()
        new = (kept + after.having("accepted") + after.having("discarded")).strip()
        size = len(old) + len(new)
        if not self._text.take(size):
            return f'<p class="meta">{counted(size, "character")} before and after are left out here.</p>'
        if old == new:
            return f"{self._said('Written again, without a change', new)}{self._details(after)}"
        parts = changes(old, new)
        ended = "Nothing: the model ended its answer here." if after.ended == "end" else "Nothing was written."
        shown = f'<dd dir="auto">{marked(parts, "added")}</dd>' if new else f'<dd class="meta">{ended}</dd>'
        return (
            f'<dl class="change"><div><dt>Before</dt><dd dir="auto">{marked(parts, "removed")}</dd></div>'
            f"<div><dt>After</dt>{shown}</div></dl>"
            f"{self._details(after)}"
        )

    def _draft(self, draft: DraftTrace) -> str:
        return f"{_failures(draft)}{self._written('Written', draft)}{self._details(draft)}"

    def _written(self, label: str, draft: DraftTrace) -> str:
        kept = draft.having("accepted")
        return self._said(label, kept) if kept.strip() else self._said("Drafted", draft.text)

    def _details(self, draft: DraftTrace) -> str:
        """Return the facts about a draft, folded unless the run is long, which leaves them out."""
        if self._long or not draft.tokens:
            return ""
        count = len(draft.evidence)
        facts = [f"{counted(count, 'passage')} in the prompt" if count else "no passages in the prompt"]
        facts += [f"{value:,} {plain(name.replace('_', ' '))}" for name, value in draft.cost.items()]
        kept = why_kept(draft)
        told = f'<p class="meta">{kept} {"; ".join(facts)}.</p>'
        return fold("Its tokens", told + self._strip(draft), style="small")

    def _event(self, event: Mapping[str, Any]) -> str:
        kind = event.get("type")
        if kind == "retrieval":
            return self._searches.html(event)
        if kind == "reasoning" and "tokens" in event:
            told = str(event.get("text") or "") or "The text was not passed on."
            return fold(f"Reasoned, {event['tokens']} tokens", block(self._text.cut(told, 8000)), style="small")
        if kind == "evidence_choice" and event.get("candidates"):
            return _choice(event)
        if kind == "reformulation" and event.get("problem"):
            return f'<p class="note">{_reformulation(event)}</p>'
        if kind == "budget":
            told = budget_reached(event)
            return f'<p class="note">{plain(told[0].upper() + told[1:])}.</p>'
        if kind == "closing" and event.get("text"):
            lead = f"{quoted(str(event['text']).strip())} was written for the model to complete"
            return f'<p class="note">Asked outright for the short answer: {lead}.</p>'
        style = "note" if kind in _NOTED else "meta"
        lines = event_lines(event)
        return "".join(block(self._text.cut(line.strip(), 2000), style=f"{style} lines") for line in lines)


def _names(rounds: Sequence[Round]) -> Iterator[str]:
    search = 0
    for each in rounds:
        search += each.asks
        unmade = "" if each.searches else ", not made"
        yield f"Search {search}{unmade}" if each.asks else "Written without a search"


def _summary(of: Round) -> str:
    """Return what a folded round shows beside its name."""
    told = []
    if of.before is not None and (fired := fired_at(of.before)):
        told.append(f"at {quoted(fired)}")
    elif of.reason:
        told.append("before the answer")
    if of.searches:
        told.append(counted(sum(len(s.get("documents") or ()) for s in of.searches), "passage"))
    if spent := sum(of.seconds.values()):
        told.append(seconds(spent))
    return ", ".join(told)


def _failures(draft: DraftTrace) -> str:
    if not draft.failures:
        return ""
    return f'<p class="note">asked {len(draft.failures) + 1} times: {inline(", ".join(draft.failures))}</p>'


def _reformulation(event: Mapping[str, Any]) -> str:
    problem = str(event["problem"]).capitalize()
    if event.get("rewrite"):
        return f"{plain(problem)}: searching again for {quoted(event.get('query', ''))}."
    used = "what was found is used" if event.get("outcome") == "evidence" else "writing continues without passages"
    return f"{plain(problem)}: {used}."


def _choice(event: Mapping[str, Any]) -> str:
    kept = event.get("kept") or ()
    rows = "".join(_candidate(c, kept=c.get("id") in kept) for c in event["candidates"])
    return f'<p class="label">Chosen: {inline(event.get("by", ""))}</p><ul class="choice">{rows}</ul>'


def _candidate(candidate: Mapping[str, Any], *, kept: bool) -> str:
    value = candidate.get("score")
    score = "every sample empty" if value is None else f"uncertainty {number(value)}"
    name = inline(name_of(candidate))
    return f'<li>{f"<b>{name}</b>" if kept else name} <span class="meta">{score}{", kept" if kept else ""}</span></li>'
