"""Common JSON layouts of texts, with those of LangChain and LlamaIndex as these libraries write them."""

import json
import math

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumpd
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import TextNode

from rag_backbone.documents import Note, ReadDocument, Skipped, read_file

ABOUT = {"source": "https://a.example/x", "title": "T", "date": "2024-05-01", "tags": ["a", "b"], "page": 3}


def read(tmp_path, *items, name="a.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(item if isinstance(item, str) else json.dumps(item) for item in items))
    return list(read_file(path, name))


@pytest.mark.parametrize(
    ("shape", "item"),
    [
        *[
            (key, {key: "The text.", **ABOUT})
            for key in ("text", "contents", "content", "page_content", "paragraph_text", "Text")
        ],
        ("nested", {"text": "The text.", "metadata": ABOUT}),
        ("meta", {"content": "The text.", "meta": ABOUT}),
        ("model_dump", Document("The text.", metadata=ABOUT).model_dump()),
        ("dumpd", dumpd(Document("The text.", metadata=ABOUT))),
        ("node", TextNode(text="The text.", metadata=ABOUT, embedding=[0.5, 0.5]).to_dict()),
        ("document", LlamaDocument(text="The text.", metadata=ABOUT).to_dict()),
        ("docstore", {"__data__": TextNode(text="The text.", metadata=ABOUT).to_dict(), "__type__": "1"}),
        ("list", {"text": ["The text."], **ABOUT}),
        ("blocks", {"content": [{"type": "text", "text": "The text."}], **ABOUT}),
        ("first blank", {"text": "", "content": "The text.", **ABOUT}),
    ],
)
def test_a_text_is_found_with_all_its_metadata(tmp_path, shape, item):
    [found] = read(tmp_path, item)
    assert (found.text, found.title, found.source) == ("The text.", "T", "https://a.example/x")
    assert {k: v for k, v in found.metadata.items() if k not in ("id", "id_")} == {
        "date": "2024-05-01",
        "tags": ["a", "b"],
        "page": 3,
    }


def test_lists_of_texts_are_joined(tmp_path):
    [found] = read(tmp_path, {"text": ["one", ["two", None], "", "three"]})
    assert found.text == "one\ntwo\nthree"


def test_equal_names_inside_and_outside_the_metadata_are_both_kept(tmp_path):
    [found] = read(tmp_path, {"text": "x", "lang": "de", "metadata": {"lang": "en", "n": 1}})
    assert found.metadata == {"lang": "de", "metadata.lang": "en", "n": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"title": "x"}, "line 1 has no text; looked for the keys text, "),
        ({"text": " \n"}, "line 1 has a blank 'text'"),
        ({"text": []}, "line 1 has a blank 'text'"),
        ({"text": None}, "line 1 has a blank 'text'"),
        ({"text": 42}, "line 1 has 42 (int) under 'text'"),
        ({"text": {"en": "x"}}, "line 1 has {'en': 'x'} (dict) under 'text'"),
        ([1], "line 1 is [1] (list); an object with a text is needed"),
        ("{", "line 1 is not JSON: "),
        ('{"text": "x"', "line 1 is not JSON: "),
    ],
)
def test_a_row_without_a_text_is_skipped_with_its_line_number_and_the_others_are_kept(tmp_path, row, reason):
    first, second = read(tmp_path, row, {"text": "fine"})
    assert isinstance(first, Skipped)
    assert first.name == "a.jsonl"
    assert first.reason.startswith(reason)
    assert second.text == "fine"


def test_non_finite_numbers_are_left_out_with_a_note(tmp_path):
    pieces = read(tmp_path, '{"text": "x", "a": NaN, "b": Infinity, "c": 1e999, "d": [NaN, 1], "e": null, "f": 1.5}')
    [found] = [p for p in pieces if isinstance(p, ReadDocument)]
    assert found.metadata == {"d": ["nan", 1], "f": 1.5}
    assert len([p for p in pieces if isinstance(p, Note)]) == 3
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in found.metadata.values())


def test_deeply_nested_values_are_left_out_with_a_note(tmp_path):
    deep = "[" * 400 + "]" * 400
    skipped, note, found = read(tmp_path, f'{{"text": {deep}}}', f'{{"text": "x", "a": {deep}, "b": [1]}}')
    assert skipped.reason == "line 1 has a text under 'text' that is nested too deeply"
    assert "'a' (nested too deeply) cannot be stored" in note.text
    assert found.metadata == {"b": [1]}


def test_lone_surrogates_are_replaced_and_counted_while_pairs_are_joined(tmp_path):
    note, found = read(tmp_path, r'{"text": "cut \ud83d off, whole \ud83d\ude00", "title": "T"}')
    assert found.text == "cut \ufffd off, whole \U0001f600"
    assert note == Note("a.jsonl", "line 1: lone surrogates in 'text', replaced by U+FFFD: 1")
    note, found = read(tmp_path, r'{"text": "x", "author": {"name": "\udc80"}}')
    assert found.metadata == {"author": {"name": "\ufffd"}}
    assert "'author.name'" in note.text


def test_a_nul_is_left_out_with_a_note(tmp_path):
    note, found = read(tmp_path, r'{"text": "one\u0000two"}')
    assert (found.text, note.text) == ("onetwo", "line 1: NUL characters, left out: 1")


def test_json_files_may_contain_a_list_a_row_or_lines(tmp_path):
    rows = [{"text": "one"}, "two", {"no": 1}]
    found = read(tmp_path, json.dumps(rows, indent=1), name="a.json")
    assert [getattr(p, "text", p) for p in found[:2]] == ["one", "two"]
    assert found[2].reason.startswith("entry 3 has no text")
    assert [p.text for p in read(tmp_path, {"text": "one"}, name="b.json")] == ["one"]
    assert [p.text for p in read(tmp_path, {"text": "one"}, {"text": "two"}, name="c.json")] == ["one", "two"]
    [broken] = read(tmp_path, '[{"text": ', name="d.json")
    assert broken.reason.startswith("is not JSON")


def test_thousands_of_broken_rows_are_counted_not_listed(tmp_path):
    pieces = read(tmp_path, *["{"] * 1000, {"text": "fine"})
    assert len(pieces) == 52
    assert pieces[-1].reason == "and 950 more parts of this file"
    assert [p.text for p in pieces if isinstance(p, ReadDocument)] == ["fine"]
