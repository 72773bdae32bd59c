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
        ("a.jsonl", "Who?", r"a.jsonl, line 1 is not JSON: .*; needed are JSON lines such as"),
        (
            "a.json",
            {"question": ["Who?"], "answers": [["Wray"]]},
            r"entry 1: an object with the keys question, answers",
        ),
        ("a.json", {"questions": [{"question": "Who?"}]}, r"entry 1: .*keys questions is not a question; needed are"),
        ("a.jsonl", '{"question": "Who?", "answers": null}', r"line 1: the answers of 'Who\?' are None; a list of str"),
        ("a.jsonl", '{"question": "Who?", "answers": [1971]}', r"line 1: the answers of 'Who\?' are \[1971\]; a list"),
        ("a.jsonl", '["Who?"]', r"line 1: \['Who\?'\] is not a question"),
        ("a.csv", "question,answer\nWho?,Wray\n", r"a.csv, line 1: 'question,answer' is the start of a table; needed"),
        ("a.txt", '"id";"Question";"Answer"\n1;Who?;Wray\n', r"line 1: .* is the start of a table; needed are JSON"),
        ("a.tsv", "asked\tanswer\nWho?\tWray\n", r"a.tsv, line 1: .* is the start of a table; needed are JSON lines"),
        ("a.yaml", "- question: Who?\n", r"a.yaml, line 1: '- question: Who\?' is the start of YAML; needed are"),
        ("a.html", "<html>Who?</html>", r"a.html, line 1: .* is the start of HTML; needed are JSON lines"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_what_is_needed(tmp_path, name, content, message):
    with pytest.raises(ConfigurationError, match=message):
        load_questions(written(tmp_path, name, content))


def test_a_question_with_commas_is_no_table(tmp_path):
    asked = "Who built the bridge, and when?\nWhich question, of the two, is older?"
    assert len(load_questions(written(tmp_path, "q.txt", asked))) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\x00Who?", r"q.txt cannot be read: not text: it is a gzip archive"),
        (b"PK\x03\x04Who?", r"not text: it is a ZIP archive or an office document"),
        (b"PAR1\x15\x04\x15\x06\x00\x01\x02", r"not text: it contains binary data"),
        (
            "O\u00f9?\n".encode("latin-1"),
            r"not UTF-8 .* pass its encoding, such as encoding='cp1252' \(--encoding cp1252\)",
        ),
        ("Who?\n".encode("utf-16-le"), r"UTF-16 without a byte-order mark; pass encoding='utf-16-le'"),
    ],
)
def test_what_is_no_text_is_refused_with_what_it_is(tmp_path, content, message):
    path = tmp_path / "q.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load_questions(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is a folder; a file of questions is needed: JSON lines such as"):
        load_questions(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file of questions .*none.json"):
        load_questions(tmp_path / "none.json")
