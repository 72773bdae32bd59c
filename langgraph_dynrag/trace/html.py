"""Traces as HTML: tokens coloured by the model's uncertainty, and expandable searches.

The HTML is self-contained: no scripts, no network access, and all text escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

from langgraph_dynrag.events.events import Event, ReasoningEvent, RetrievalEvent
from langgraph_dynrag.events.parts import EvidenceCandidate, FoundPassage
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.trace.draft_trace import DraftTrace, TokenTrace
from langgraph_dynrag.trace.lines import event_lines

_STYLE = """
.dynrag{font:14px/1.6 system-ui,sans-serif;max-width:60em;padding:.8em 1em;border-radius:6px}
.dynrag,.dynrag details{color:#1a1a1a;background:#fff}
.dynrag h3{margin:.1em 0 .5em;font-size:1.05em}
.dynrag .meta{color:#666;font-size:12px}
.dynrag .draft{border-left:3px solid #4c78a8;padding:.2em .7em;margin:.5em 0}
.dynrag .t{white-space:pre-wrap;border-radius:3px}
.dynrag .discarded{text-decoration:line-through;opacity:.75}
.dynrag .ahead{opacity:.4}
.dynrag .fired{outline:2px solid #d62728}
.dynrag details{border:1px solid #ccc;border-radius:4px;padding:.2em .6em;margin:.4em 0}
.dynrag summary{cursor:pointer}
.dynrag .doc{margin:.3em 0 .3em 1em;font-size:13px}
.dynrag .note{color:#a15c00;margin:.3em 0}
.dynrag .answer{border-left:3px solid #2ca02c;padding:.2em .7em;margin-top:.7em}
.dynrag .scale span{padding:0 .5em}
"""


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
    def steps(self) -> Sequence[DraftTrace | Event]:
        """Drafts, with the other events between them."""

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
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(trace.question)}</title></head>'
        f"<body>{fragment(trace)}</body></html>\n"
    )


def fragment(trace: TraceView) -> str:
    """Return an HTML fragment for a notebook."""
    body = "".join(_draft(step) if isinstance(step, DraftTrace) else _event(step) for step in trace.steps)
    sources = "".join(
        f'<div class="doc">[{s["number"]}] <b>{escape(name_of(s))}</b> '
        f'<span class="meta">found by: {escape(str(s["query"]))}</span></div>'
        for s in trace.sources
    )
    warned = "".join(f'<div class="note">{escape(warning)}</div>' for warning in trace.warnings)
    counts = ", ".join(f"{value} {escape(name.replace('_', ' '))}" for name, value in trace.counts.items())
    seconds = ", ".join(f"{escape(name)} {value:.2f} s" for name, value in trace.seconds.items())
    usage = f"{escape(str(trace.usage))}<br>" if trace.usage.calls else ""
    return (
        f'<div class="dynrag"><style>{_STYLE}</style><h3>{escape(trace.question)}</h3>{_scale()}{body}'
        f'<div class="answer"><b>{escape(trace.short_answer or trace.answer)}</b>'
        f"<div>{escape(trace.answer)}</div>{warned}{sources}</div>"
        f'<div class="meta">{counts}<br>{usage}{seconds}</div></div>'
    )


def _scale() -> str:
    steps = "".join(f'<span style="background:{_colour(p)}">{p:g}</span>' for p in (1.0, 0.75, 0.5, 0.25, 0.0))
    return f'<div class="meta scale">probability of a token: {steps}</div>'


def _colour(probability: float) -> str:
    """Return a colour between white (certain) and red (improbable)."""
    fade = round(255 * max(0.0, min(1.0, probability)) ** 0.7)
    return f"rgb(255,{80 + fade * 175 // 255},{80 + fade * 175 // 255})"


def _draft(draft: DraftTrace) -> str:
    tokens = "".join(_token(token) for token in draft.tokens)
    verdict = draft.verdict
    reason = ""
    if verdict is not None:
        sign = "&#8594; retrieve: " if verdict["retrieve"] else ""
        reason = f'<div class="meta">{sign}{escape(str(verdict["reason"]))}</div>'
    cost = ", ".join(f"{value} {escape(name.replace('_', ' '))}" for name, value in draft.cost.items())
    with_passages = f"{len(draft.evidence)} passages in the prompt" if draft.evidence else "no passages in the prompt"
    return f'<div class="draft">{tokens}{reason}<div class="meta">{with_passages}; {cost}</div></div>'


def _token(token: TokenTrace) -> str:
    classes = {"accepted": "t", "discarded": "t discarded", "looked ahead": "t ahead"}[token.fate]
    if token.fired:
        classes += " fired"
    numbers = {"p": token.probability, "entropy": token.entropy, "score": token.score}
    title = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items() if value is not None)
    style = "" if token.probability is None else f' style="background:{_colour(token.probability)}"'
    return f'<span class="{classes}" title="{escape(title)}"{style}>{escape(token.text)}</span>'


def _event(event: Event) -> str:
    """Render an event as lines, or as an expandable block for kinds that have details."""
    if event["type"] == "retrieval":
        return _retrieval(event)
    if event["type"] == "reasoning":
        return _reasoning(event)
    if event["type"] == "evidence_choice" and "candidates" in event:
        rows = "".join(_candidate(c, kept=c["id"] in event["kept"]) for c in event["candidates"])
        return f'<div class="note">chosen: {escape(event["by"])}</div>{rows}'
    noted = event["type"] in _NOTED
    return "".join(
        f'<div class="{"note" if noted else "meta"}">{escape(line.strip() if noted else line)}</div>'
        for line in event_lines(event)
    )


_NOTED = ("reformulation", "budget", "inserted", "closing", "kept", "degraded", "repetition", "no_text")


def _reasoning(event: ReasoningEvent) -> str:
    told = escape(event["text"]) or "The text was not passed on."
    return (
        f"<details><summary>reasoned, {event['tokens']} tokens</summary>"
        f'<div class="doc" style="white-space:pre-wrap">{told}</div></details>'
    )


def _candidate(candidate: EvidenceCandidate, *, kept: bool) -> str:
    title = escape(str(candidate["title"] or candidate["id"]))
    score = "every sample empty" if candidate["score"] is None else f"uncertainty {candidate['score']:.3f}"
    return f'<div class="doc">{"&#10003; " if kept else ""}{title} <span class="meta">{score}</span></div>'


def _retrieval(event: RetrievalEvent) -> str:
    documents = "".join(_document(d) for d in event["documents"])
    found = f"{len(event['documents'])} documents" if event["documents"] else str(event["error"] or "nothing found")
    return (
        f"<details><summary>&#128270; {escape(event['query'])} "
        f'<span class="meta">{escape(found)}, {event.get("seconds", 0.0):.2f} s</span></summary>{documents}</details>'
    )


def _document(document: FoundPassage) -> str:
    title = escape(name_of(document))
    score = "" if document["score"] is None else f", score {document['score']:.3f}"
    known = "new" if document["new"] else "seen before"
    text = escape(document["text"])
    return f'<div class="doc"><b>{title}</b> <span class="meta">{known}{score}</span><br>{text}</div>'
