"""Tables: a document for each row, whatever the separator."""

import pytest

from tests.rag_backbone.documents.files import read


def test_a_row_of_a_table_is_a_document(tmp_path):
    path = tmp_path / "people.csv"
    path.write_bytes('\ufeffName,born,note\r\n"Wray, A.",1901,"two\nlines"\r\n,,\r\nPike,,,extra\r\n'.encode())
    first, second = read(path)
    assert first.text == "Name: Wray, A.\nborn: 1901\nnote: two\nlines"
    assert first.metadata == {"Name": "Wray, A.", "born": "1901", "note": "two\nlines", "row": 1}
    assert (first.source, first.title) == ("people.csv", "people")
    assert second.text == "Name: Pike\ncolumn 4: extra"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "Ort;Preis\nKöln;1,50\n"), ("a.TSV", "Ort\tPreis\nKöln\t1,50\n"), ("b.csv", "Ort|Preis\nKöln|1,50")],
)
def test_tables_may_have_other_separators_and_encodings(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("cp1252"))
    [refused] = read(tmp_path / name)
    assert "not UTF-8" in refused.reason
    [found] = read(tmp_path / name, encoding="cp1252")
    assert found.text == "Ort: Köln\nPreis: 1,50"


def test_the_title_and_source_columns_of_a_table_are_used(tmp_path):
    (tmp_path / "a.csv").write_text("Title,URL,date,text\nT,https://a.example,2024-05-01,words\n")
    [found] = read(tmp_path / "a.csv")
    assert (found.title, found.source) == ("T", "https://a.example")
    assert found.metadata["date"] == "2024-05-01"


def test_only_short_cells_of_a_table_are_metadata(tmp_path):
    (tmp_path / "a.csv").write_text(f"a,b\n{'x' * 200},{'y' * 201}\n")
    [found] = read(tmp_path / "a.csv")
    assert found.text == f"a: {'x' * 200}\nb: {'y' * 201}"
    assert found.metadata == {"a": "x" * 200, "row": 1}
