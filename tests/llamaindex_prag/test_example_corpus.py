"""The included corpus of a fictional country is consistent."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from llamaindex_prag.augment.grounding import folded

FOLDER = Path(__file__).parents[2] / "examples" / "data" / "ombrel"


def lines(name):
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


DOCUMENTS = {d["id"]: d for d in lines("corpus.jsonl")}
QUESTIONS = lines("questions.jsonl")


def holds(text, part):
    return re.search(rf"(?<!\w){re.escape(folded(part))}(?!\w)", folded(text)) is not None


def repeated(values):
    return [value for value, count in Counter(values).items() if count > 1]


def test_the_corpus_has_enough_documents_and_questions():
    assert len(DOCUMENTS) == len(lines("corpus.jsonl")) >= 44
    hops = Counter(q["hops"] for q in QUESTIONS)
    assert set(hops) == {1, 2}
    assert hops[1] >= 100
    assert hops[2] >= 30
    assert {i for q in QUESTIONS if q["hops"] == 1 for i in q["documents"]} == set(DOCUMENTS)


def test_there_are_no_duplicates():
    assert not repeated(folded(d["title"]) for d in DOCUMENTS.values())
    assert not repeated(folded(d["text"]) for d in DOCUMENTS.values())
    assert not repeated(q["id"] for q in QUESTIONS)
    assert not repeated(" ".join(re.findall(r"\w+", folded(q["question"]))) for q in QUESTIONS)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents_are_short_and_name_their_subject(document):
    assert set(document) == {"id", "title", "text"}
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", document["id"])
    assert 60 <= len(document["text"].split()) <= 130
    assert any(holds(document["text"], word) for word in document["title"].split())


@pytest.mark.parametrize("question", QUESTIONS, ids=[q["id"] for q in QUESTIONS])
def test_an_answer_occurs_in_the_documents_but_not_in_the_question(question):
    assert set(question) == {"id", "question", "answers", "documents", "hops"}
    assert question["question"].endswith("?")
    assert len(set(question["documents"])) == len(question["documents"]) == question["hops"]
    texts = [DOCUMENTS[i]["text"] for i in question["documents"]]
    answer = question["answers"][0]
    assert any(holds(text, answer) for text in texts)
    assert len(answer.split()) <= 6
    assert not repeated(question["answers"])
    assert not any(holds(question["question"], a) for a in question["answers"])


def test_the_documents_refer_to_each_other():
    def names(document):
        return document["title"].removeprefix("River ").removeprefix("Lake ")

    linked = {
        one["id"]: {o["id"] for o in DOCUMENTS.values() if o is not one and holds(one["text"], names(o))}
        for one in DOCUMENTS.values()
    }
    assert all(len(to) >= 1 for to in linked.values()), [i for i, to in linked.items() if not to]
