"""The benchmark of whose adapter acts after each search."""

import json
import math

import numpy as np
import pytest

from benchmarks.datasets import Paragraph, Question, corpus
from benchmarks.hop_routing import WAYS, by_vectors, by_words, hops, main, rows_of
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from rag_backbone.loading.minilm import MiniLM

BRIDGE = Paragraph("Vold bridge", "The bridge of Vold was built by Aldous Wray.", True)
WRAY = Paragraph("Aldous Wray", "Aldous Wray was born in Tarn Ellis.", True)
OTHER = Paragraph("Pell", "Pell is a town with a bridge and a ferry.", False)
ASKED = Question("1", "Where was the builder of the bridge of Vold born?", ("Tarn Ellis",), (BRIDGE, WRAY, OTHER))


def test_each_query_lets_a_passage_act():
    search = by_words(BM25Retriever.from_documents(corpus([ASKED])), 2)
    found = hops(ASKED, [ASKED.text, "Aldous Wray was born in"], search)
    assert found["searches"] == 2
    assert found["supporting"] == {BRIDGE.id, WRAY.id}
    assert found["search"] == found["query"] == [BRIDGE.id, WRAY.id]
    assert found["question"][0] == BRIDGE.id
    # Neither passage has a sentence with enough of these words.
    assert hops(ASKED, ["Aldous quarrelled with nobody about money"], search)["query"] == [None]
    assert hops(ASKED, ["xylophone"], search)["search"] == [None]


def test_vectors_find_the_passage_with_the_greatest_cosine():
    minilm = MiniLM()
    documents = corpus([ASKED])
    search = by_vectors(minilm, documents, 2)
    found = search("Who built the bridge of Vold?")
    assert found[0].id == BRIDGE.id
    texts = [f"{d.metadata['title']}\n{d.page_content}" for d in documents]
    cosines = np.array(minilm.embed(texts)) @ np.array(minilm.embed(["Who built the bridge of Vold?"])[0])
    assert [c.score for c in found] == pytest.approx(sorted(cosines.tolist(), reverse=True)[:2], abs=1e-6)


def test_shares_are_those_of_a_hand_worked_example():
    base = {"supporting": {"a", "b"}, "found": {"a", "b", "x"}, "searches": 2}
    one = base | {"search": ["a", "b"], "question": ["a", "a"], "query": ["x", None], "question and query": ["a", "x"]}
    two = base | {"supporting": {"c"}, "found": {"x"}, "searches": 1} | {way: ["x"] for way in WAYS}
    rows = {row["chosen by"]: row for row in rows_of("ircot", "bm25", [one, two], 0)}
    search, question, query = rows["search"], rows["question"], rows["query"]
    assert (search["n"], search["searches"], search["found"]) == (2, 1.5, 0.5)
    assert (search["first"], search["acted"], search["over_question"]) == (0.25, 0.5, 0.25)
    assert (question["acted"], question["over_question"]) == (0.25, 0)
    assert (search["acts"], search["right"]) == (1, pytest.approx(2 / 3))
    assert (query["acts"], query["right"]) == (pytest.approx(2 / 3), 0)
    assert (search["changed"], question["changed"], query["changed"]) == (1, 0, 0)  # of the answer with two searches
    alone = {row["chosen by"]: row for row in rows_of("single", "bm25", [two], 0)}
    assert math.isnan(alone["search"]["changed"])


def test_a_run_reports_every_way_and_is_resumed(tmp_path, model, capsys):
    question = {
        "_id": "a",
        "question": "When was the ferry of Vold built?",
        "answer": "1973",
        "type": "bridge",
        "supporting_facts": [["Vold", 0]],
        "context": [["Vold", ["The ferry of Vold was built in 1973."]], ["Pell", ["Pell is a town."]]],
    }
    path = tmp_path / "some_dev.json"
    path.write_text(json.dumps([question]))
    options = ["--data", str(path), "--model", str(model), "--dtype", "float32", "--methods", "iter_retgen"]
    main(options)
    figures = json.loads(capsys.readouterr().out)
    assert figures["complete"]
    assert [row["chosen by"] for row in figures["data"]["some_dev"]] == [*WAYS, *WAYS]
    assert all(row["first"] == 1 for row in figures["data"]["some_dev"])
    main(options)
    assert json.loads(capsys.readouterr().out)["data"] == figures["data"]
    with pytest.raises(SystemExit):
        main([*options, "--methods", "flair"])
    assert "--methods flair: known are" in capsys.readouterr().err
