"""What the numbers show, in plain words, and never more than their intervals allow.

A difference in F1 is called one only if its interval excludes 0 and at least six questions differ: fewer could all fall
on one side by chance (a sign test needs six of six for p < 0.05), which a bootstrap over so few does not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langgraph_dynrag.evaluation.methods import LONG_CONTEXT, NO_RETRIEVAL, SINGLE
from langgraph_dynrag.evaluation.scores import Difference, Measure, Row

FEW = 10
"""Below this number of questions, nothing is said about which method is better."""
_DIFFERING = 6
_CLEARLY_CHEAPER = 0.8
"""Share of another method's cost from which on a method is called cheaper."""


def verdict_of(rows: Sequence[Row], differences: Sequence[Difference], *, complete: bool) -> tuple[str, ...]:
    """Return the verdict, one statement per line.

    Args:
        rows: The results of all methods.
        differences: The paired differences to `single` and to `long_context`.
        complete: Whether all questions were asked of all methods.
    """
    ran = {r.method: r for r in rows if r.problem is None}
    n = next((r.questions for r in ran.values()), 0)
    if not n:
        return ("No question was answered by all methods yet, so there is nothing to compare; run it again to resume.",)
    lines = [] if complete else [f"Stopped before the end: all of this is about the {n} questions that were finished."]
    broken = [f"{r.method} ({r.failures})" for r in ran.values() if r.failures]
    if broken:
        lines.append(f"Some of the {n} questions failed, which lowers a method's scores: {', '.join(broken)}.")
    to_single = {d.method: d for d in differences if d.baseline == SINGLE}
    if all(r.f1 is None for r in ran.values()):
        lines.append("The questions have no answers, so only cost and searches are compared, not the answers.")
        return (*lines, *_costs_alone(ran))
    n = ran[SINGLE].scored
    if n < FEW:
        many = "questions with answers are" if n > 1 else "question with answers is"
        lines.append(
            f"{n} {many} too few: the intervals are too wide to call any method better or worse. Use at least {FEW}, "
            "better 50."
        )
        return (*lines, *_costs_alone(ran))
    dynamic = [d for m, d in to_single.items() if m not in (NO_RETRIEVAL, LONG_CONTEXT)]
    lines.append(f"In short: {_in_short(to_single, dynamic, ran)}")
    if NO_RETRIEVAL in to_single:
        lines.append(_retrieval(to_single[NO_RETRIEVAL], n))
    lines += _against_single(dynamic, n)
    if LONG_CONTEXT in to_single:
        lines.append(_against_long(to_single[LONG_CONTEXT], ran, n))
    lines += _cheaper(dynamic, ran, n)
    lines += _dearer(dynamic, ran)
    lines += _limits([*to_single.values()], n)
    return tuple(lines)


def is_shown(difference: Difference) -> bool:
    """Return whether a difference in F1 is one that the questions show."""
    f1 = difference.f1
    return f1 is not None and difference.differing >= _DIFFERING and (f1.low > 0 or f1.high < 0)


def _in_short(to_single: Mapping[str, Difference], dynamic: Sequence[Difference], ran: Mapping[str, Row]) -> str:
    better = [d.method for d in dynamic if _gains(d)]
    if better:
        return f"{_listed(better)} answered these questions better than one search; the costs are below."
    if LONG_CONTEXT in to_single and _gains(to_single[LONG_CONTEXT]):
        return (
            "more passages up front answered these questions better than one search for a few; searching while "
            "writing is not shown to."
        )
    cheaper = [d for d in dynamic if _is_cheaper(d, ran)]
    if cheaper:
        bound = max(-d.f1.low for d in cheaper if d.f1 is not None)
        open_ = f", though one of up to {bound:.2f} is not ruled out" if bound > 0 else ""
        return f"{_listed([d.method for d in cheaper])} searched less than `{SINGLE}`; no loss of F1 is shown{open_}."
    none = to_single.get(NO_RETRIEVAL)
    if none is not None and _loses(none):
        return "one search is worth it on these questions; nothing shows that searching while writing is worth more."
    if none is not None and _gains(none):
        return "these questions were answered better without documents."
    return "these questions do not show that any way of searching is worth its cost."


def _gains(d: Difference) -> bool:
    return is_shown(d) and d.f1 is not None and d.f1.value > 0


def _loses(d: Difference) -> bool:
    return is_shown(d) and d.f1 is not None and d.f1.value < 0


def _is_cheaper(d: Difference, ran: Mapping[str, Row]) -> bool:
    """Return whether a method searches clearly less than `single`, and is not shown to lose F1."""
    own, usual = ran[d.method].searches, ran[SINGLE].searches
    if own is None or usual is None or d.f1 is None or _loses(d):
        return False
    return own.value <= _CLEARLY_CHEAPER * usual.value


def _listed(methods: Sequence[str]) -> str:
    return ", ".join(f"`{m}`" for m in methods)


def _retrieval(d: Difference, n: int) -> str:
    """Compare one search with none; the difference is that of answering without documents less `single`."""
    assert d.f1 is not None
    turned = Measure(0.0 - d.f1.value, 0.0 - d.f1.high, 0.0 - d.f1.low)  # not -x, which may be -0
    if is_shown(d):
        better = "raises" if turned.value > 0 else "lowers"
        return f"Searching once before the answer {better} F1 over answering without documents: {_signed(turned)}."
    return (
        f"These {n} questions do not show that searching once changes F1 against answering without documents: "
        f"{_signed(turned)}."
    )


def _against_single(dynamic: Sequence[Difference], n: int) -> list[str]:
    lines = []
    for sign, word in ((1, "higher"), (-1, "lower")):
        shown = [d for d in dynamic if is_shown(d) and d.f1 is not None and d.f1.value * sign > 0]
        if shown:
            told = ", ".join(f"`{d.method}` {_signed(d.f1)}" for d in shown)
            lines.append(f"F1 is {word} than with one search: {told}.")
    rest = [d.method for d in dynamic if not is_shown(d)]
    if rest and not lines:
        lines.append(f"No method differs in F1 from one search by more than these {n} questions can show.")
    elif rest:
        lines.append(f"Not told apart from one search: {_listed(rest)}.")
    compared = sum(1 for d in dynamic if d.f1 is not None)
    if lines and compared >= 3 and len(rest) < compared:
        lines.append(f"With {compared} methods compared, one in twenty is expected beyond its interval by chance.")
    return lines


def _against_long(d: Difference, ran: Mapping[str, Row], n: int) -> str:
    what = f"Reading many passages up front (`{LONG_CONTEXT}`)"
    read = _ratio(ran[LONG_CONTEXT], ran[SINGLE])
    cost = f", for {read:.1f} times the tokens" if read else ""
    assert d.f1 is not None
    if is_shown(d):
        return f"{what} changes F1 against one search by {_signed(d.f1)}{cost}."
    return f"{what} does not differ from one search by more than {n} questions can show: F1 {_signed(d.f1)}{cost}."


def _cheaper(dynamic: Sequence[Difference], ran: Mapping[str, Row], n: int) -> list[str]:
    """Name the methods that search less than `single` and do not have a lower F1, with what that leaves open."""
    lines = []
    for d in dynamic:
        own, usual = ran[d.method].searches, ran[SINGLE].searches
        if not _is_cheaper(d, ran) or own is None or usual is None or d.f1 is None:
            continue
        bound = (
            f"the questions do not rule out an F1 that is {-d.f1.low:.2f} lower"
            if d.f1.low < 0 and d.differing
            else f"its F1 is that of one search in {n - d.differing} of {n} questions"
        )
        tokens, own_n = _ratio(ran[d.method], ran[SINGLE]), ran[d.method].questions
        told = f" and {tokens:.1f} times the tokens" if tokens else ""
        lines.append(
            f"`{d.method}` gives the same short answer as one search in {d.same_answers} of {own_n} questions, with "
            f"{own.value:.1f} searches instead of {usual.value:.1f}{told}; {bound}."
        )
    return lines


def _dearer(dynamic: Sequence[Difference], ran: Mapping[str, Row]) -> list[str]:
    """Name the methods that cost more than `single` without a gain that is shown."""
    told = []
    for d in dynamic:
        own, tokens = ran[d.method].searches, _ratio(ran[d.method], ran[SINGLE])
        if own is None or _gains(d) or not tokens or tokens <= 1 / _CLEARLY_CHEAPER:
            continue
        told.append(f"`{d.method}` ({own.value:.1f} searches, {tokens:.1f} times the tokens)")
    if not told:
        return []
    return [f"Costs more than one search, without a gain that is shown: {', '.join(told)}."]


def _limits(differences: Sequence[Difference], n: int) -> list[str]:
    widths = sorted((d.f1.high - d.f1.low) / 2 for d in differences if d.f1 is not None and d.differing)
    if not widths:
        return [f"All methods have the same F1 on each of the {n} questions; other questions may tell them apart."]
    least = widths[len(widths) // 2]
    return [
        f"With {n} questions, differences in F1 below about {least:.2f} cannot be seen.",
        "Questions of another kind may give another order.",
    ]


def _costs_alone(ran: Mapping[str, Row]) -> list[str]:
    told = []
    for row in ran.values():
        tokens = _tokens(row)
        if row.searches is not None and tokens is not None:
            told.append(f"`{row.method}` {row.searches.value:.1f} searches and {tokens:,.0f} tokens")
    return [f"Per question: {'; '.join(told)}."] if told else []


def _tokens(row: Row) -> float | None:
    if row.read_tokens is None or row.written_tokens is None:
        return None
    return row.read_tokens.value + row.written_tokens.value


def _ratio(row: Row, other: Row) -> float | None:
    own, base = _tokens(row), _tokens(other)
    return own / base if own and base else None


def _signed(measure: Measure | None) -> str:
    assert measure is not None
    return f"{measure.value:+.2f} [{measure.low:+.2f}, {measure.high:+.2f}]"
