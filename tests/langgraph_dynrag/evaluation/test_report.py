"""The report as text, data and page."""

import json
import re
from dataclasses import replace

import pytest

from langgraph_dynrag import Evaluation
from langgraph_dynrag.evaluation.results import Asked
from langgraph_dynrag.evaluation.scores import Row, difference_of, row_of
from langgraph_dynrag.evaluation.verdict import verdict_of
from rag_backbone.errors import MissingExtraError
from tests.langgraph_dynrag.evaluation.test_scores import FAILED, result

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def evaluation():
    """Return three methods on twelve questions; one of them failed once, and one could not be run."""
    extra = {"queries": ["q"], "unreported_calls": 0, "found": 1, "answer_found": True}
    methods = {
        "no_retrieval": [result(0.0, searches=0, **extra)] * 12,
        "single": [result(1.0, answer=EVIL, **extra)] * 12,
        "flare": [*([result(0.5, searches=2, **extra)] * 11), FAILED],
    }
    rows = [*(row_of(m, rs, (), 0) for m, rs in methods.items()), Row("dragin", problem="it needs <attention>")]
    differences = [difference_of(m, methods[m], "single", methods["single"], 0) for m in ("no_retrieval", "flare")]
    asked = [Asked(f"Who? {EVIL}", (EVIL,), {m: methods[m][i] for m in methods}) for i in range(12)]
    verdict = verdict_of(rows, differences, complete=True)
    return Evaluation("tiny", tuple(rows), tuple(differences), verdict, ("A note.",), tuple(asked), 12, True, 8, 0)


def test_the_text_holds_table_reasons_verdict_and_notes(evaluation):
    lines = str(evaluation).splitlines()
    assert lines[0] == "tiny, 12 of 12 questions"
    assert re.split(r" {2,}", lines[1]) == [
        "method",
        "EM",
        "F1",
        "contains",
        "searches",
        "read",
        "written",
        "seconds",
        "failed",
    ]
    assert re.split(r" {2,}", lines[3])[:3] == ["single", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]"]
    assert "dragin: not run, it needs <attention>" in lines
    assert "flare: 1 failed, the first: ServerError: down" in lines
    assert f"- {evaluation.verdict[0]}" in lines
    assert lines[-1] == "Note: A note."
    judged = replace(evaluation, judge="qa by m")
    assert str(judged).splitlines()[0] == "tiny, 12 of 12 questions, judged by qa by m"
    assert repr(evaluation) == "Evaluation('tiny': no_retrieval, single, flare on 12 questions)"


def test_the_data_is_plain_json(evaluation):
    told = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert (told["finished"], told["complete"], told["notes"]) == (12, True, ["A note."])
    assert told["rows"][1]["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert told["rows"][3]["problem"] == "it needs <attention>"
    assert told["asked"][11]["results"]["flare"] == {"failure": "ServerError: down"}
    assert told["asked"][0]["results"]["single"]["searches"] == 1


def test_the_page_needs_nothing_else_and_escapes_all_text(evaluation, tmp_path):
    path = evaluation.save_html(tmp_path / "folder" / "report.html")
    html = path.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "it needs &lt;attention&gt;" in html
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", html)
    assert html.count("data:image/svg+xml;base64,") == 2
    assert all(f">{line.split('`')[0][:20]}" in html for line in evaluation.verdict)
    assert evaluation.save_html(tmp_path / "again.html").read_text("utf-8") == html


def test_a_page_without_matplotlib_says_what_to_install(evaluation, monkeypatch):
    def missing(*_, **__):
        raise MissingExtraError("a plot needs matplotlib: pip install 'dynprag[viz]'")

    monkeypatch.setattr("rag_backbone.plot_style.use", missing)
    html = evaluation._repr_html_()
    assert "No plots: a plot needs matplotlib: pip install 'dynprag[viz]'" in html
    assert "What the numbers show" in html


def test_plots_show_each_method_that_ran(evaluation):
    figure = evaluation.plot()
    axes = figure.get_axes()
    assert [a.get_xlabel() for a in axes] == ["F1", "searches", "prompt tokens"]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["no_retrieval", "single", "flare"]
    without = replace(evaluation, rows=tuple(replace(r, f1=None) for r in evaluation.rows))
    assert [a.get_xlabel() for a in without.plot().get_axes()] == ["searches", "prompt tokens"]


def test_a_method_is_looked_up_by_its_name(evaluation):
    assert evaluation.row("flare").failures == 1
    with pytest.raises(KeyError, match="there is no method 'flair'; there are no_retrieval, single"):
        evaluation.row("flair")
