"""Common JSON layouts of texts, with those of LangChain and LlamaIndex as these libraries write them."""

import math
from datetime import date

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumpd
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import TextNode

from rag_backbone.documents import Note, ReadDocument, Skipped
from rag_backbone.documents.fields import as_line, plain_fields, text_and_fields
from tests.rag_backbone.documents.files import read_rows

ABOUT = {"source": "https://a.example/x", "title": "T", "date": "2024-05-01", "tags": ["a", "b"], "page": 3}


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
    [found] = read_rows(tmp_path, item)
    assert (found.text, found.title, found.source) == ("The text.", "T", "https://a.example/x")
    assert {k: v for k, v in found.metadata.items() if k not in ("id", "id_")} == {
        "date": "2024-05-01",
        "tags": ["a", "b"],
        "page": 3,
    }


def test_lists_of_texts_are_joined(tmp_path):
    [found] = read_rows(tmp_path, {"text": ["one", ["two", None], "", "three"]})
    assert found.text == "one\ntwo\nthree"


def test_equal_names_inside_and_outside_the_metadata_are_both_kept(tmp_path):
    [found] = read_rows(tmp_path, {"text": "x", "lang": "de", "metadata": {"lang": "en", "n": 1}})
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
    first, second = read_rows(tmp_path, row, {"text": "fine"})
    assert isinstance(first, Skipped)
    assert first.name == "a.jsonl"
    assert first.reason.startswith(reason)
    assert second.text == "fine"


def test_non_finite_numbers_are_left_out_with_a_note(tmp_path):
    pieces = read_rows(
        tmp_path, '{"text": "x", "a": NaN, "b": Infinity, "c": 1e999, "d": [NaN, 1], "e": null, "f": 1.5}'
    )
    [found] = [p for p in pieces if isinstance(p, ReadDocument)]
    assert found.metadata == {"d": ["nan", 1], "f": 1.5}
    assert len([p for p in pieces if isinstance(p, Note)]) == 3
    assert not any(isinstance(v, float) and not math.isfinite(v) for v in found.metadata.values())


def test_deeply_nested_values_are_left_out_with_a_note(tmp_path):
    deep = "[" * 400 + "]" * 400
    skipped, note, found = read_rows(tmp_path, f'{{"text": {deep}}}', f'{{"text": "x", "a": {deep}, "b": [1]}}')
    assert skipped.reason == "line 1 has a text under 'text' that is nested too deeply"
    assert "'a' (nested too deeply) cannot be stored" in note.text
    assert found.metadata == {"b": [1]}


def test_lone_surrogates_are_replaced_and_counted_while_pairs_are_joined(tmp_path):
    note, found = read_rows(tmp_path, r'{"text": "cut \ud83d off, whole \ud83d\ude00", "title": "T"}')
    assert found.text == "cut \ufffd off, whole \U0001f600"
    assert note == Note("a.jsonl", "line 1: lone surrogates in 'text', replaced by U+FFFD: 1")
    note, found = read_rows(tmp_path, r'{"text": "x", "author": {"name": "\udc80"}}')
    assert found.metadata == {"author": {"name": "\ufffd"}}
    assert "'author.name'" in note.text


def test_a_nul_is_left_out_with_a_note(tmp_path):
    note, found = read_rows(tmp_path, r'{"text": "one\u0000two"}')
    assert (found.text, note.text) == ("onetwo", "line 1: NUL characters, left out: 1")


def test_fields_become_plain_data():
    notes = []
    fields = {"day": date(2024, 5, 1), "none": None, "nan": math.nan, "object": object(), "n": 1}
    assert plain_fields(fields, notes.append) == {"day": "2024-05-01", "n": 1}
    assert notes[0] == "'nan' is nan, which is not a value, and was left out"
    assert notes[1].startswith("'object' (")
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("value", "line"),
    [(None, ""), (" a\n b\t", "a b"), (7, "7"), (["ü", 1], '["ü", 1]'), (date(2024, 5, 1), '"2024-05-01"')],
)
def test_a_field_is_shown_on_one_line(value, line):
    assert as_line(value) == line


def test_the_first_of_two_texts_is_used_and_the_other_kept():
    assert text_and_fields({"content": "b", "text": "a", "Contents": "a"}) == ("a", {"content": "b"})
    assert text_and_fields("a") == ("a", {})
