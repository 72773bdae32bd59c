"""What a retriever searches, and answers that it cannot find."""

import pytest
from langchain_core.documents import Document

from langgraph_dynrag import BM25Retriever, HybridRetriever
from langgraph_dynrag.evaluation.corpus import documents_of, identity_of, missing_answers
from langgraph_dynrag.evaluation.questions import EvaluationQuestion
from tests.langgraph_dynrag.retrieval.indexes import make_index
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever


@pytest.mark.parametrize("kind", ["bm25", "dense", "hybrid"])
def test_the_documents_of_an_index_are_listed_and_change_its_identity(tmp_path, kind):
    index = make_index(tmp_path)
    index.add_documents(DOCUMENTS[:2])
    retriever = index.as_retriever(kind)
    found = documents_of(retriever)
    assert {d.page_content for d in found} == {d.page_content for d in DOCUMENTS[:2]}
    before = identity_of(retriever, found)
    assert identity_of(index.as_retriever(kind), documents_of(index.as_retriever(kind))) == before
    assert identity_of(index.as_retriever(kind, k=7), found) != before
    index.add_documents(DOCUMENTS[2:])
    assert identity_of(retriever, documents_of(retriever)) != before


def test_a_retriever_of_ones_own_is_known_by_its_class_alone():
    assert documents_of(WatchedRetriever()) is None
    assert identity_of(WatchedRetriever(), None).startswith("WatchedRetriever")
    mixed = HybridRetriever(retrievers=[WatchedRetriever(), BM25Retriever.from_documents(DOCUMENTS)])
    assert documents_of(mixed) == tuple(DOCUMENTS)
    assert documents_of(None) is None
    assert identity_of(None, None) == "none"


def test_answers_are_looked_for_as_whole_words_in_texts_and_titles():
    documents = [Document("It was built by the mason, Aldous Wray.", metadata={"title": "Cooper's Bridge"})]
    asked = {"wray": ("aldous WRAY",), "title": ("The Coopers Bridge",), "part": ("son",), "yes": ("yes",), "none": ()}
    found = missing_answers([EvaluationQuestion(n, n, a) for n, a in asked.items()], documents)
    assert [q.id for q in found] == ["part"]
