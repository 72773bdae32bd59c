"""The plots of the example notebooks have the style of all plots; they are drawn here without a model."""

import ast
import math

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
from matplotlib import pyplot as plt

from examples.notebooks.execute import FOLDER
from langgraph_dynrag import with_threshold
from langgraph_dynrag.triggers import ETC, RIND, Entropy, TokenProbability
from llamaindex_prag.placement.costs import Costs
from rag_backbone import plot_style
from tests.drawn import Drawn, assert_distinct, assert_legible
from tests.langgraph_dynrag.recorded import causal_attention, random_draft, view_of

SENTENCE = ["The", " thatch", "ers", " school", " of", " L", "usk", " was", " founded", " in", " 18", "12", "."]
TRIGGERS = {"probability": TokenProbability(0.8), "entropy": Entropy(2.0), "RIND": RIND(0.005), "ETC": ETC(0.5)}


@pytest.fixture(autouse=True)
def pyplot(monkeypatch):
    """Draw into memory, with the style as the first cell sets it, and leave matplotlib as it was."""
    with mpl.rc_context():
        plt.switch_backend("Agg")
        monkeypatch.setattr(plt, "show", lambda: None)
        plot_style.use()
        yield
        plt.close("all")


def drawing(name, containing):
    """Return the statements of a notebook's cell from its first figure on, and the functions that it defines."""
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    (cell,) = [c for c in cells if c.cell_type == "code" and "plt.subplots" in c.source and containing in c.source]
    body = ast.parse(cell.source).body
    first = next((i for i, node in enumerate(body) if "subplots" in ast.dump(node)), 0)
    kept = [n for n in body[:first] if isinstance(n, ast.FunctionDef)] + body[first:]
    return compile(ast.Module([n for n in kept if not isinstance(n, ast.Assert)], []), containing, "exec")


def shown(code, **names):
    exec(code, {"plt": plt, "plot_style": plot_style, "math": math, **names})
    found = Drawn(plt.gcf())
    assert_legible(found)
    assert_distinct(found)
    return found


def some_view(seed):
    rng = np.random.default_rng(seed)
    question, answer = ["Who", " was", " it"], ["Yes", "."]
    length = 4 + len(question) + 2 + len(answer) + len(SENTENCE)
    return view_of(random_draft(rng, SENTENCE), causal_attention(rng, 2, length), question, answer)


def test_three_ways_to_answer():
    found = shown(
        drawing("parametric_knowledge", "mean_f1"),
        kinds=["closed book", "in context", "trained"],
        mean_f1=[0.02, 0.32, 0.63],
        occurs=[0, 5, 4],
        questions=range(6),
    )
    assert any("n = 6 questions" in text for text in found.texts)
    assert found.references == ([0.02, 0], ["closed book", "closed book"])


def test_costs_of_a_document():
    found = shown(
        drawing("parametric_knowledge", "costs.once"),
        costs=Costs(read=0.002, activate=0.0002, train=0.7),
        length=119,
        times=range(1, 2001),
    )
    assert {"context", "trained", "questions about the document", "seconds in all"} <= set(found.texts)


def test_scores_of_the_tokens_of_a_sentence():
    found = shown(
        drawing("triggers_and_traces", "plot_scores"),
        view=some_view(0),
        triggers=TRIGGERS,
        DraftView=object,
        TokenProbability=TokenProbability,
    )
    assert any("n = 13 tokens" in text for text in found.texts)
    assert found.references == ([0.8, 2, 0.005, 0.5], ["0.8", "2", "0.005", "0.5"])
    fired = [bar for axis in found.figure.axes for bar in axis.patches if bar.get_hatch()]
    assert fired
    assert {mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in fired} == {plot_style.VERMILLION}


def test_the_share_of_sentences_with_a_search():
    views = [some_view(seed) for seed in range(5)]
    found = shown(
        drawing("triggers_and_traces", "with_threshold"),
        views=views,
        view=views[0],
        triggers=TRIGGERS,
        with_threshold=with_threshold,
    )
    assert any("n = 5" in text for text in found.texts)
    assert found.references[1] == ["preset: 0.8", "preset: 2", "preset: 0.005", "preset: 0.5"]
