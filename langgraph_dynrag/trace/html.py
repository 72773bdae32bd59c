"""The trace as a page: question, answer and figures; how the answer grew, search by search; time, sources and events.

The HTML is self-contained: no scripts, no network access, and all text escaped. It is the same in a notebook and in a
file, follows the colour scheme of its surroundings, and shows a record of any version, as far as that has been made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from langgraph_dynrag.events.events import Event
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.trace.draft_trace import DraftTrace
from langgraph_dynrag.trace.markup import (
    Allowance,
    block,
    counted,
    document,
    fold,
    foldable,
    inline,
    plain,
    quoted,
    seconds,
    section,
    shortened,
)
from langgraph_dynrag.trace.plain_words import is_finished, method, why_ended
from langgraph_dynrag.trace.round_view import LEGEND, RoundView
from langgraph_dynrag.trace.rounds import rounds_of
from langgraph_dynrag.trace.time_line import time_line
from rag_backbone.documents.names import is_opaque

_LEAD = 600
"""Characters of a longer answer that are shown while it is folded."""
_SHORT = 200
"""Characters from which on an answer is not printed large."""
_MARKUP = 200
"""Characters of markup around a source or an event."""
_MOST_VALUE = 2000
"""Characters of a source, or of a field of an event, that are shown."""


class TraceView(Protocol):
    """The parts of a `Trace` that the page shows."""

    @property
    def question(self) -> str:
        """The question."""

    @property
    def answer(self) -> str:
        """The complete answer."""

    @property
    def short_answer(self) -> str:
        """The short answer; empty if there is none."""

    @property
    def events(self) -> Sequence[Event]:
        """All events."""

    @property
    def drafts(self) -> Sequence[DraftTrace]:
        """The drafts."""

    @property
    def sources(self) -> Sequence[Mapping[str, Any]]:
        """The answer's sources."""

    @property
    def warnings(self) -> Sequence[str]:
        """Warnings for the reader of the answer."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Searches, drafts and tokens by name."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Working time by node."""

    @property
    def usage(self) -> Usage:
        """Token usage that the provider reported."""


def page(trace: TraceView) -> str:
    """Return a complete HTML document."""
    return document(trace.question, fragment(trace))


def fragment(trace: TraceView) -> str:
    """Return an HTML fragment for a notebook."""
    rounds = rounds_of(trace.events, trace.drafts)
    view = RoundView(rounds)
    grown = "".join(f"<li>{shown}</li>" for shown in view.html())
    sections = [
        _header(trace),
        section("How the answer grew", f'{LEGEND}<ol class="rounds">{grown}</ol>' if grown else ""),
        section("Time and cost", time_line(rounds, view.names, trace.seconds) + _cost(trace)),
        section("Record", _sources(trace.sources) + _events(trace.events)),
    ]
    return f'<article class="dynrag" aria-label="Trace of a run"><style>{style()}</style>{"".join(sections)}</article>'


@cache
def style() -> str:
    """Return the page's style sheet."""
    return files("langgraph_dynrag.trace").joinpath("page.css").read_text("utf-8")


def _header(trace: TraceView) -> str:
    warned = "".join(f'<p class="note" role="note" dir="auto">Warning: {plain(w)}</p>' for w in trace.warnings)
    return (
        f'<header><p class="label">Question</p>{block(trace.question, "h2", "question")}'
        f"{_answer(trace)}{warned}{_figures(trace)}</header>"
    )


def _answer(trace: TraceView) -> str:
    if not trace.answer and not trace.short_answer and not is_finished(trace.events):
        written = "".join(str(e.get("text") or "") for e in trace.events if e.get("type") in ("accepted", "closing"))
        so_far = f'<p class="label">Written so far</p>{foldable(written.strip(), _LEAD)}' if written.strip() else ""
        return f'<p class="note" role="note">The run has no answer: it was stopped, or it failed.</p>{so_far}'
    short = trace.short_answer or trace.answer
    if not short:
        return '<p class="note" role="note">The answer is empty.</p>'
    answer = block(short, style="answer") if len(short) < _SHORT else foldable(short, _LEAD)
    whole = foldable(trace.answer, _LEAD, style="whole said") if trace.answer.strip() != short.strip() else ""
    return f'<p class="label">Answer</p>{answer}{whole}'


def _figures(trace: TraceView) -> str:
    counts = trace.counts
    searches = counts["retrievals"]
    nothing_new = f", {counts['nothing_new']} with nothing new" if counts["nothing_new"] else ""
    spent = sum(trace.seconds.values())
    slowest = max(trace.seconds.items(), key=lambda item: item[1], default=("", 0.0))
    figures = {
        "Method": inline(method(trace.events)),
        "Searches": (f"{searches:,}{nothing_new}" if searches else "none"),
        "Tokens": f"{counts['accepted_tokens']:,} kept, {counts['discarded_tokens']:,} discarded",
        "Time": f"{seconds(spent)}, of which {plain(slowest[0])} {slowest[1] / spent:.0%}" if spent else "not recorded",
        "Ended": plain(why_ended(trace.events, trace.answer)),
    }
    return (
        '<dl class="figures">' + "".join(f"<div><dt>{n}</dt><dd>{v}</dd></div>" for n, v in figures.items()) + "</dl>"
    )


def _cost(trace: TraceView) -> str:
    counts = ", ".join(f"{plain(name.replace('_', ' '))}: {value:,}" for name, value in trace.counts.items())
    usage = f'<p class="meta">{plain(trace.usage)}</p>' if trace.usage.calls else ""
    return f'<p class="meta">{counts}</p>{usage}'


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    if not sources:
        return ""
    allowance = Allowance(20_000)
    listed = []
    for at, s in enumerate(sources, 1):
        text = shortened(str(s.get("text") or ""), _MOST_VALUE)
        if not allowance.take(len(text) + _MARKUP):
            break
        named = f'<b>{inline(name_of(s))}</b> <bdi class="meta">{_found_by(s)}</bdi>'
        listed.append(f'<li value="{_number(s, at)}"><p dir="auto">{named}</p>{block(text, style="passage")}</li>')
    shown = f'<ol class="sources">{"".join(listed)}</ol>{_missing(len(sources) - len(listed), "source")}'
    return fold(f"Sources ({len(sources):,})", shown)


def _missing(count: int, noun: str) -> str:
    if not count:
        return ""
    return f'<p class="meta">{counted(count, f"more {noun}")}; <code>trace.{noun}s</code> has all of them.</p>'


def _number(source: Mapping[str, Any], at: int) -> int:
    given = source.get("number")
    return given if isinstance(given, int) else at


def _found_by(source: Mapping[str, Any]) -> str:
    origin = str(source.get("source") or "")
    shown = f"from {inline(origin)}, " if origin and origin != name_of(source) and not is_opaque(origin) else ""
    return shown + (f"found by {quoted(source['query'])}" if source.get("query") else "")


def _events(events: Sequence[Mapping[str, Any]]) -> str:
    allowance = Allowance(40_000)
    listed = []
    for event in events:
        body = "\n".join(f"{name}: {_value(value)}" for name, value in event.items() if name != "type")
        if not allowance.take(len(body) + _MARKUP):
            break
        listed.append(f"<li>{fold(_event_summary(event), block(body, 'pre', 'fields'))}</li>")
    shown = f'<ol class="events">{"".join(listed)}</ol>{_missing(len(events) - len(listed), "event")}'
    return fold(f"All events ({len(events):,})", shown)


def _event_summary(event: Mapping[str, Any]) -> str:
    spent = event.get("seconds")
    facts = [plain(event["node"])] if event.get("node") else []
    facts += [seconds(spent)] if isinstance(spent, int | float) else []
    return f'{plain(event.get("type", "without a type"))} <span class="meta">{", ".join(facts)}</span>'


def _value(value: object) -> str:
    return shortened(json.dumps(value, ensure_ascii=False, default=str), _MOST_VALUE)
