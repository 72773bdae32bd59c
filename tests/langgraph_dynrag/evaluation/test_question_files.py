"""Files of questions, in every format, with texts of our own."""

import json

import pytest

from langgraph_dynrag.evaluation import load_questions
from langgraph_dynrag.evaluation.questions import EvaluationQuestion, Paragraph, corpus
from rag_backbone.errors import ConfigurationError

HOTPOT = {
    "_id": "h1",
    "question": "In which year was the ferry of Quillon built?",
    "answer": "1971",
    "type": "bridge",
    "supporting_facts": [["Ferry", 0]],
    "context": [["Ferry", ["The ferry was built. ", " It was in 1971."]], ["Harbour", ["The harbour is deep."]]],
}
MUSIQUE = {
    "id": "2hop__7",
    "question": "Who mined the tower?",
    "answer": "Doll",
    "answer_aliases": ["C. Doll"],
    "answerable": True,
    "paragraphs": [
        {"title": "Tower", "paragraph_text": "Doll mined it.", "is_supporting": True},
        {"title": "Mine", "paragraph_text": "The mine is old.", "is_supporting": False},
    ],
}
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Ferries",
            "paragraphs": [
                {
                    "context": "The Patient Anna has 60 cabins.",
                    "qas": [
                        {
                            "id": "s1",
                            "question": " How many cabins has she? ",
                            "answers": [{"text": "60", "answer_start": 21}, {"text": "60", "answer_start": 21}],
                        },
                        {"id": "s2", "question": "Who sank her?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def written(tmp_path, name, value):
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_json_lines_hold_answers_and_the_names_of_supporting_passages(tmp_path):
    lines = [
        {"id": "a", "question": "One?", "answers": ["1", "one"], "supporting": ["First", "First"]},
        {"question": "Two?", "answer": "2", "documents": ["Second"], "hops": 1},
        {"question": "Three?", "context": "something else"},
    ]
    path = written(tmp_path, "q.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert load_questions(path) == [
        EvaluationQuestion("a", "One?", ("1", "one"), named=("First",)),
        EvaluationQuestion("Two?", "Two?", ("2",), named=("Second",)),
        EvaluationQuestion("Three?", "Three?"),
    ]
    # The name of the file does not matter.
    assert load_questions(written(tmp_path, "q.txt", path.read_text())) == load_questions(path)


def test_plain_text_and_json_arrays_are_questions_too(tmp_path):
    asked = [EvaluationQuestion("One?", "One?"), EvaluationQuestion("Two?", "Two?")]
    assert load_questions(written(tmp_path, "q.txt", "One?\n\n Two? \n")) == asked
    assert load_questions(written(tmp_path, "q.json", ["One?", {"question": "Two?"}])) == asked
    assert load_questions(written(tmp_path, "one.json", {"question": "One?"})) == asked[:1]


def test_hotpotqa_and_2wikimultihopqa(tmp_path):
    (found,) = load_questions(written(tmp_path, "h.json", [HOTPOT]))
    paragraphs = (
        Paragraph("Ferry", "The ferry was built. It was in 1971.", True),
        Paragraph("Harbour", "The harbour is deep.", False),
    )
    assert found == EvaluationQuestion("h1", HOTPOT["question"], ("1971",), paragraphs, "bridge")
    assert found.supporting == {"Ferry: The ferry was built. It was in 1971."}
    assert found.by_title().supporting == {"Ferry"}


def test_musique_without_what_cannot_be_answered(tmp_path):
    lines = [MUSIQUE, {**MUSIQUE, "id": "2hop__8", "answerable": False}]
    (found,) = load_questions(written(tmp_path, "m.jsonl", "\n".join(map(json.dumps, lines))))
    assert (found.answers, found.kind, found.supporting) == (("Doll", "C. Doll"), "2hop", {"Tower: Doll mined it."})
    # A file with a single line is no JSON array either.
    assert load_questions(written(tmp_path, "m1.jsonl", json.dumps(MUSIQUE))) == [found]


def test_squad_with_each_paragraph_once(tmp_path):
    (found,) = load_questions(written(tmp_path, "s.json", SQUAD))
    assert (found.id, found.text, found.answers) == ("s1", "How many cabins has she?", ("60",))
    assert [d.page_content for d in corpus([found, found])] == ["The Patient Anna has 60 cabins."]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"question": "One?"}\n{"q', r"a.jsonl, line 2 is not JSON"),
        (
            "a.jsonl",
            '{"question": "One?"}\n{"q": "Two?"}',
            r"a.jsonl, line 2: .*keys q is not a question; needed are JSON",
        ),
        ("a.jsonl", '{"question": " "}', r"a.jsonl, line 1: .* is not a question"),
        ("a.jsonl", '{"question": "One?", "answers": 3}', r"a.jsonl, line 1: the answers of 'One\?' are 3; a list"),
        ("a.jsonl", '{"question": "One?", "supporting": [3]}', r"line 1: the supporting passages of 'One\?' are \[3\]"),
        ("a.json", '[{"x": 1}]', r"a.json, entry 1: .*needed are JSON lines"),
        ("a.json", "[3]", r"a.json, entry 1: 3 is not a question"),
        ("a.json", "[{", r"a.json is not valid JSON"),
        ("a.json", "", r"a.json contains no questions"),
        ("a.json", "[]", r"a.json contains no questions"),
        ("a.txt", "\n", r"a.txt contains no questions"),
        ("a.json", [{**HOTPOT, "context": 3}], r"entry 1: .*this is an entry of HotpotQA or 2WikiMultihopQA, but"),
        ("a.json", [HOTPOT, {**HOTPOT, "question": ""}], r"entry 2: the question with id 'h1' is empty"),
        ("a.jsonl", json.dumps({**MUSIQUE, "paragraphs": [{}]}), r"line 1: .*entry of MuSiQue, but .*'title'"),
        ("a.json", {"data": [{"paragraphs": [{}]}]}, r"article 1: .*entry of SQuAD, but .*'context'"),
        ("a.json", {"data": []}, r"contains no questions"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_what_is_needed(tmp_path, name, content, message):
    with pytest.raises(ConfigurationError, match=message):
        load_questions(written(tmp_path, name, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file of questions .*none.json"):
        load_questions(tmp_path / "none.json")
