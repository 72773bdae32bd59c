"""The report of a change to an index, as text."""

from langgraph_dynrag.retrieval.ingest_report import IngestReport


def test_counts_are_one_line_if_nothing_was_skipped():
    told = str(IngestReport(added=2, changed=1, removed=3, unchanged=4, embedded=5, chunks=6))
    assert told == "2 files added, 1 changed, 3 removed, 4 unchanged; 5 chunks embedded, 6 in the index"


def test_what_was_skipped_or_changed_is_listed_below():
    report = IngestReport(skipped=(("a.bin", "is binary"),), notes=(("b.csv", "an empty row was left out"),))
    first, *rest = str(report).splitlines()
    assert first.startswith("0 files added")
    assert rest[0] == "1 skipped:"
    assert "a.bin" in rest[1]
    assert "is binary" in rest[1]
    assert rest[2] == "1 changed:"
    assert "b.csv" in rest[3]
