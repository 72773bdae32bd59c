"""Labelling the sentences of drafts, by a scripted model whose labels are known."""

import pytest

from langgraph_dynrag import create_dynamic_rag, create_nodes
from langgraph_dynrag.calibration.points import PointRecorder, features_for, label_points, refuse_unanswered
from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.retrieval import BM25Retriever
from langgraph_dynrag.triggers.features import FEATURES
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.calibration.bridges import PLAIN, bridges
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever

ALL = frozenset({"logprob", "entropy"})


def test_features_are_those_that_model_and_index_can_give():
    counting = BM25Retriever.from_documents(DOCUMENTS)
    assert features_for(counting, ALL) == tuple(FEATURES)
    assert set(FEATURES) - set(features_for(WatchedRetriever(), ALL)) == {"rarest_new_name"}
    left_out = set(FEATURES) - set(features_for(counting, frozenset({"logprob"})))
    assert left_out == {"greatest_entropy", "mean_entropy"}


def labelled(give, **options):
    """Label one wrong and one right bridge; return the points, the model's calls and the queries."""
    model, retriever, _ = bridges()
    retriever = WatchedRetriever(give=give)
    recorder = PointRecorder(("least_logprob", "evidence_in_prompt"))
    built = {"preset": "flare", "trigger": recorder, **PLAIN, **options}
    settings = create_nodes(model, retriever, **built).begin.settings
    asked = [CalibrationQuestion(f"Who built bridge {i}?", ("Wray",)) for i in (0, 5)]
    points = label_points(create_dynamic_rag(model, retriever, **built), settings, recorder, asked)
    return points, model.calls, retriever.queries


def test_a_wrong_sentence_that_passages_make_right_needed_them():
    points, calls, queries = labelled([d.model_copy(update={"page_content": "Fact. Wray."}) for d in DOCUMENTS[:1]])
    assert [(p.question, p.needed) for p in points] == [(0, True), (1, False)]
    assert len(calls) == 4  # the wrong sentence, the aided one, the one after the retrieval; and the right sentence
    assert queries[:2] == ["Who built bridge 0? Wray", "Who built bridge 0?"]


def test_a_right_sentence_counts_as_such_if_passages_were_in_the_prompt():
    uninformed, *_ = labelled(DOCUMENTS[:1])
    assert [p.right_with_passages for p in uninformed] == [False, False]
    informed, *_ = labelled(DOCUMENTS[:1], initial_retrieval=True)
    assert [(p.right_with_passages, p.values["evidence_in_prompt"]) for p in informed] == [(False, 1), (True, 1)]


@pytest.mark.parametrize("give", [[], DOCUMENTS[2:3]])
def test_without_passages_that_help_nothing_is_needed(give):
    points, _, queries = labelled(give)
    assert [p.needed for p in points] == [False, False]
    assert len(queries) == 4  # the graph itself never searched


def test_questions_without_an_answer_are_refused():
    with pytest.raises(ConfigurationError, match="1 of 2 questions have none, the first: 'When"):
        refuse_unanswered([CalibrationQuestion("Who?", ("Wray",)), CalibrationQuestion("When?")])
