"""Where the seconds of a run went: a bar for the whole run, and a table with one row per round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langgraph_dynrag.trace.markup import fold, plain, seconds
from langgraph_dynrag.trace.rounds import Round

_COLOURS = ("generate", "retrieve", "monitor", "reformulate", "resume", "conclude")
"""Nodes with a colour of their own; see `page.css`."""
_MOST_ROWS = 40
_SMALL = 0.005
"""Shares of a bar that are too small to be seen."""


def time_line(rounds: Sequence[Round], names: Sequence[str], totals: Mapping[str, float]) -> str:
    """Return the time line as HTML; empty if no times were recorded.

    Args:
        rounds: The rounds.
        names: Their names.
        totals: Working time of the whole run by node.
    """
    whole = sum(totals.values())
    if not whole:
        return ""
    by_size = sorted(totals.items(), key=lambda item: -item[1])
    legend = "".join(f"<li>{_key(node)} <b>{seconds(spent)}</b>{_share(spent / whole)}</li>" for node, spent in by_size)
    return (
        f'<p class="meta">{seconds(whole)} of work in all.</p>{_bar(totals, whole)}<ul class="legend">{legend}</ul>'
        f"{_by_round(rounds, names)}"
    )


def _by_round(rounds: Sequence[Round], names: Sequence[str]) -> str:
    timed = [(name, r.seconds) for name, r in zip(names, rounds, strict=True) if r.seconds]
    if len(timed) < 2:
        return ""
    longest = max(sum(spent.values()) for _, spent in timed)
    shown, note = timed, ""
    if len(timed) > _MOST_ROWS:
        limit = sorted((sum(spent.values()) for _, spent in timed), reverse=True)[_MOST_ROWS - 1]
        shown = [(name, spent) for name, spent in timed if sum(spent.values()) >= limit][:_MOST_ROWS]
        note = f'<p class="meta">The {len(shown)} longest of {len(timed)} parts.</p>'
    rows = "".join(
        f'<tr><th scope="row">{plain(name)}</th><td class="n">{seconds(sum(spent.values()))}</td>'
        f"<td>{_bar(spent, longest)}{_parts(spent)}</td></tr>"
        for name, spent in shown
    )
    head = '<tr><th scope="col">part</th><th scope="col">time</th><th scope="col">of which</th></tr>'
    table = f'<table class="times"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    return fold("Part by part", note + table, is_open=len(timed) <= 12, style="small")


def _key(node: str) -> str:
    return f'<span class="key {_style(node)}"></span> {plain(node)}'


def _share(of_whole: float) -> str:
    return f" ({of_whole:.0%})" if of_whole >= 0.01 else ""


def _parts(spent: Mapping[str, float]) -> str:
    told = [f"{plain(node)} {seconds(value)}" for node, value in spent.items() if value >= _SMALL]
    return f'<span class="meta">{", ".join(told) or "less than 0.01 s each"}</span>'


def _bar(spent: Mapping[str, float], whole: float) -> str:
    """Return a stacked bar. Its text is beside it, so it is hidden from screen readers."""
    parts = "".join(
        f'<span class="{_style(node)}" style="width:{value / whole:.1%}"></span>'
        for node, value in spent.items()
        if whole and value / whole >= _SMALL
    )
    return f'<div class="bar" aria-hidden="true">{parts}</div>'


def _style(node: str) -> str:
    return f"n-{node}" if node in _COLOURS else "n-other"
