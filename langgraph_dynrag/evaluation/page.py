"""The report as a page: verdict, table, differences, plots, and the answers question by question.

The HTML is self-contained, like a trace's page, whose style it has: no scripts, no network access, all text escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from langgraph_dynrag.evaluation.methods import LONG_CONTEXT, SINGLE
from langgraph_dynrag.evaluation.plots import differences, scores_and_costs
from langgraph_dynrag.evaluation.results import COLUMNS, Asked, Results, cell
from langgraph_dynrag.evaluation.scores import Failure, Measure, Result, score
from langgraph_dynrag.trace.html import style
from langgraph_dynrag.trace.markup import Allowance, counted, document, fold, inline, plain, section, shortened
from rag_backbone.errors import MissingExtraError

_MOST = 200
"""Characters of a question or an answer that are shown."""
_ROOM = 400_000
"""Characters of all questions and answers that are shown."""


def page(evaluation: Results) -> str:
    """Return a complete HTML document."""
    return document(f"Evaluation of {evaluation.model}", fragment(evaluation))


def fragment(evaluation: Results) -> str:
    """Return an HTML fragment for a notebook."""
    sections = [
        _header(evaluation),
        section("Methods", _rows(evaluation) + _problems(evaluation)),
        section("Paired differences", _differences(evaluation)),
        section("Plots", _plots(evaluation)),
        section("Questions", _asked(evaluation)),
    ]
    return f'<article class="dynrag" aria-label="Evaluation"><style>{style()}</style>{"".join(sections)}</article>'


def _header(evaluation: Results) -> str:
    said = "".join(f"<li>{_code(line)}</li>" for line in evaluation.verdict)
    notes = "".join(f'<p class="note" role="note">Note: {plain(note)}</p>' for note in evaluation.notes)
    finished = f"{counted(len(evaluation.asked), 'question')} of {evaluation.questions:,}"
    judge = f", judged by {inline(evaluation.judge)}" if evaluation.judge else ""
    about = f"{inline(evaluation.model)}, {finished}, seed {evaluation.seed}{judge}"
    return (
        f'<header><p class="label">Evaluation</p><h2>What the numbers show</h2><p class="meta">{about}</p>'
        f'<ul class="said" style="padding-inline-start:19px">{said}</ul>{notes}</header>'
    )


def _code(text: str) -> str:
    """Return a statement of the verdict as HTML; what stands between backticks is a name."""
    parts = text.split("`")
    return "".join(f"<code>{plain(p)}</code>" if i % 2 else plain(p) for i, p in enumerate(parts))


def _rows(evaluation: Results) -> str:
    names = evaluation.columns()
    ran = [r for r in evaluation.rows if r.problem is None]
    body = [[r.method, *(cell(r, name) for name in names), str(r.failures)] for r in ran]
    told = (
        "Means per question; brackets hold 95 % bootstrap intervals. Read and written are tokens: of all prompts, "
        "cached or not, and generated, discarded ones included."
    )
    table = _table(["method", *(COLUMNS[name][0] for name in names), "failed"], body)
    return f'{table}<p class="meta">{told}</p>'


def _problems(evaluation: Results) -> str:
    lines = [f"{inline(r.method)} was not run: {plain(r.problem)}" for r in evaluation.rows if r.problem is not None]
    lines += [
        f"{inline(r.method)} failed in {counted(r.failures, 'question')}; the first: {plain(r.first_failure)}"
        for r in evaluation.rows
        if r.failures
    ]
    return "".join(f'<p class="note">{line}</p>' for line in lines)


def _differences(evaluation: Results) -> str:
    body = [
        [
            f"{d.method} less {d.baseline}",
            _signed(d.f1, 2),
            f"{d.differing} of {d.questions}",
            _signed(d.searches, 1),
            _signed(d.tokens, 0),
            f"{d.same_answers} of {d.questions}",
        ]
        for d in evaluation.differences
    ]
    heads = ["", "F1", "F1 differs in", "searches", "tokens", "same short answer"]
    return _table(heads, body) if body else ""


def _signed(measure: Measure | None, digits: int) -> str:
    if measure is None:
        return ""
    value, low, high = (f"{x:+,.{digits}f}" for x in (measure.value, measure.low, measure.high))
    return f"{value} [{low}, {high}]"


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{plain(h)}</th>" for h in heads)
    rows = [f"<tr><th>{inline(line[0])}</th>{''.join(f'<td>{plain(c)}</td>' for c in line[1:])}</tr>" for line in body]
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>"
    )


def _plots(evaluation: Results) -> str:
    if not evaluation.asked:
        return ""
    try:
        found = [("Scores and costs of each method", scores_and_costs(evaluation))]
        found += [(f"F1 less that of {b}", differences(evaluation, b)) for b in (SINGLE, LONG_CONTEXT)]
    except MissingExtraError as error:
        return f'<p class="note">No plots: {plain(error)}</p>'
    return "".join(_image(figure, alt) for alt, figure in found if figure is not None)


def _image(figure: Any, alt: str) -> str:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "dynprag"}):  # the same result gives the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{plain(alt)}" style="max-width:100%" src="data:image/svg+xml;base64,{data}"></figure>'


def _asked(evaluation: Results) -> str:
    allowance = Allowance(_ROOM)
    listed = []
    for asked in evaluation.asked:
        shown = _one(asked)
        if not allowance.take(len(shown)):
            break
        listed.append(f"<li>{shown}</li>")
    missing = len(evaluation.asked) - len(listed)
    more = f'<p class="meta">{counted(missing, "more question")}; <code>evaluation.asked</code> has all.</p>'
    return f'<ol class="events">{"".join(listed)}</ol>{more if missing else ""}' if listed else ""


def _one(asked: Asked) -> str:
    body = [[name, _answer(r), _f1(r), _searches(r)] for name, r in asked.results.items()]
    correct = "; ".join(asked.answers)
    told = f'<p class="meta">Correct: {inline(shortened(correct, _MOST))}</p>' if correct else ""
    return fold(inline(shortened(asked.question, _MOST)), told + _table(["method", "answer", "F1", "searches"], body))


def _answer(result: Result) -> str:
    return shortened(f"failed: {result.message}" if isinstance(result, Failure) else result["short_answer"], _MOST)


def _f1(result: Result) -> str:
    value = score(result, "f1")
    return "" if value is None else f"{value:.2f}"


def _searches(result: Result) -> str:
    return "" if isinstance(result, Failure) else str(result["retrievals"])
