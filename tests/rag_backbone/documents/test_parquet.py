"""Rows of a Parquet file are documents, like lines of JSON; a broken file is reported."""

import datetime as dt

import pyarrow as pa
from pyarrow import parquet

from llamaindex_prag.passage_files import read_passages
from rag_backbone.documents import ReadDocument, Skipped
from tests.rag_backbone.documents.files import read

ROWS = [
    {"id": "bridge", "title": "Bridge", "text": "The bridge has 41 arches.", "built": dt.date(1871, 5, 1)},
    {"id": "mill", "title": None, "text": "The mill is old.", "built": None},
    {"id": "blank", "title": "Blank", "text": " ", "built": None},
]


def written(path):
    parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=1)
    return path


def test_each_row_is_a_document_with_the_other_columns_as_fields(tmp_path):
    bridge, mill, blank = read(written(tmp_path / "towns.parquet"))
    assert (bridge.text, bridge.title, bridge.number) == ("The bridge has 41 arches.", "Bridge", 1)
    assert bridge.metadata == {"id": "bridge", "built": "1871-05-01"}
    assert isinstance(mill, ReadDocument)
    assert mill.title == ""
    assert isinstance(blank, Skipped)
    assert blank.reason == "row 3 has a blank 'text'"


def test_a_broken_file_is_reported(tmp_path):
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    (skipped,) = read(path)
    assert "is no Parquet file that can be read" in skipped.reason


def test_passages_are_rows_named_by_their_id(tmp_path):
    path = written(tmp_path / "towns.parquet")
    found = read_passages(path)
    assert [p.document for p in found] == [f"{path.resolve().as_posix()}#{name}" for name in ("bridge", "mill")]
