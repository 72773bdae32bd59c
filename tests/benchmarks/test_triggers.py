"""The experiment on triggers: its points on a tiny model, and its figures compared with plain counting."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from benchmarks.datasets import Paragraph, Question
from benchmarks.draft_points import FORMULATORS, SIGNALS_ONLY, TAG, TAG_QUERY, TOKENS, Answer, PointWriter
from benchmarks.fact_labels import Labelled
from benchmarks.learned_trigger import view_of
from benchmarks.point_records import points_of
from benchmarks.queries import scores_of as query_scores
from benchmarks.triggers import best_thresholds, drafts_summary, rates, summarise
from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers.features import features_of
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTION = Question("q", "Who built the bridge?", ("Wray",), (Paragraph("Wray", "Wray built the bridge.", True),), "")


@pytest.fixture(scope="module")
def writer():
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
    return PointWriter(chat, samples=2)


@pytest.fixture(scope="module")
def written(writer):
    return writer.write(QUESTION)


def test_every_point_is_judged_by_every_trigger(written, writer):
    assert written["points"]
    for point in written["points"]:
        assert set(point["triggers"]) == {*writer.watched, TAG, "Once()", "EverySentence()", "EveryNTokens(n=16)"}
        assert point["before"] in written["corrected"]
        assert point["missing"] == [QUESTION.paragraphs[0].id]
    assert sum(p["tokens"] for p in written["points"] if not p["needed"]) <= TOKENS + 64
    assert [p["index"] for p in written["points"]] == list(range(len(written["points"])))
    first = written["points"][0]["triggers"]
    assert first["Once()"]["fires"]
    assert first["token probability, min (FLARE)"]["score"] <= 0  # negated: the less probable, the higher


def test_points_of_signals_only_are_the_same_and_give_the_features(written, writer):
    """FLARE's score is the negated least probability, with which the feature can be compared."""
    fast = PointWriter(writer._chat, signals_only=True)
    assert fast.description != writer.description
    index = BM25Retriever.from_documents([Document(p.text) for p in QUESTION.paragraphs])
    found = fast.write(QUESTION)["points"]
    assert [p["sentence"] for p in found] == [p["sentence"] for p in written["points"]]
    for point in found:
        assert set(point["triggers"]) > set(SIGNALS_ONLY)
        assert "queries" not in point
        view = view_of(point, QUESTION.text, index)
        assert view.unit.text == point["sentence"]
        (least,) = features_of(view, ["least_logprob"])
        score = point["triggers"]["token probability, min (FLARE)"]["score"]
        assert -math.exp(least) == pytest.approx(score, abs=1e-4)


def test_every_formulator_states_a_query(writer):
    answer = Answer(QUESTION)
    rest = writer._draft(answer)
    view = writer.view(answer, rest.draft, min(6, len(rest.draft)), rest.attention)
    wrong = tuple(view.unit.word_spans[:1]) or (view.unit.spans[0],)
    found = writer._formulated(answer, view, Labelled("wrong", wrong, wrong))
    assert set(found) == {*FORMULATORS, TAG_QUERY}
    assert all(queries and all(isinstance(q, str) for q in queries) for queries in found.values())


def points(scores_and_needs):
    return [
        {
            "question": Question(f"q{i // 3}", "", (), (), ""),
            "needed": need,
            "without": "wrong",
            "with": "right",
            "triggers": {"one": {"score": score, "fires": score > 0.5}},
        }
        for i, (score, need) in enumerate(scores_and_needs)
    ]


def test_figures_match_a_worked_example():
    """Two of five points need retrieval, with scores 0.9 and 0.6; the trigger fires at 0.9, 0.8 and 0.6."""
    found = points([(0.9, True), (0.8, False), (0.6, True), (0.3, False), (0.2, False)])
    (row,) = summarise(found, best_thresholds(found), 0)
    assert row["auc"] == pytest.approx(5 / 6)  # of six pairs, only 0.6 below 0.8 is ranked wrongly
    assert row["preset"]["precision"] == pytest.approx(2 / 3)
    assert row["preset"]["recall"] == 1
    assert row["preset"]["fires"] == pytest.approx(0.6)
    assert row["tuned"]["threshold"] == 0.6  # precision 2/3, recall 1: F1 0.8; 0.9 alone has 0.67
    low, high = row["preset"]["precision_interval"]
    assert 0 <= low <= row["preset"]["precision"] <= high <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_has_a_better_f1(pairs):
    found = points(pairs)
    thresholds = best_thresholds(found)
    if not any(need for _, need in pairs):
        assert not thresholds
        return

    def value(threshold):
        hits = sum(need for score, need in pairs if score >= threshold)
        return 2 * hits / (sum(score >= threshold for score, _ in pairs) + sum(need for _, need in pairs))

    assert value(thresholds["one"]) == pytest.approx(max(value(score) for score, _ in pairs))


def test_a_trigger_that_never_fires_has_no_precision():
    found = rates([False, False], [True, False], ["a", "b"], 0)
    assert found["recall"] == 0
    assert found["precision"] != found["precision"]  # nan


def test_drafts_are_summarised():
    row = {
        "question": QUESTION,
        "points": [],
        "unaided": "So the answer is Pike.",
        "corrected": "So the answer is Wray.",
    }
    found = drafts_summary([row])
    assert (found["f1 unaided"], found["f1 corrected"]) == (0, 1)
    assert points_of([{**row, "points": [{"index": 0}]}]) == [{"question": QUESTION, "index": 0}]


def test_recall_counts_the_missing_paragraphs():
    point = {"ranked": {"f": ["a", "b", "c", "d"]}, "missing": ["b", "x"], "source": "d"}
    found = query_scores(point, "f")
    assert (found["recall@1"], found["recall@3"], found["recall@10"]) == (0, 0.5, 0.5)
    assert (found["next@3"], found["next@10"]) == (0, 1)
    assert query_scores({**point, "source": None, "missing": []}, "f") == {
        f"{kind}@{depth}": None for kind in ("recall", "next") for depth in (1, 3, 10)
    }
