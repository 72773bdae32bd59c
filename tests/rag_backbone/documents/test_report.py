"""What was skipped and changed, collected and grouped by reason."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.documents.pieces import Note, Skipped
from rag_backbone.documents.report import Findings, grouped, told


def test_findings_keep_skipped_parts_and_changes_in_order():
    findings = Findings([Skipped("b", "empty"), Note("a", "NUL characters, left out: 1")])
    findings.add(Skipped("a", "hidden", deliberate=True))
    assert findings.skipped == (("b", "empty"), ("a", "hidden"))
    assert findings.notes == (("a", "NUL characters, left out: 1"),)


def test_only_what_is_left_out_by_a_rule_is_logged_below_warning(caplog):
    logger = logging.getLogger("tests.report")
    pieces = [Skipped("a", "empty"), Note("b", "cut"), Skipped("c", "hidden", deliberate=True), Skipped("d", "empty")]
    with caplog.at_level(logging.INFO, logger.name):
        Findings(pieces).log(logger, "notes")
        Findings().log(logger, "nothing")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "notes: 2 skipped; a, d: empty"),
        (logging.WARNING, "notes: 1 changed; b: cut"),
        (logging.INFO, "notes: 1 left out; c: hidden"),
    ]


def test_names_with_the_same_reason_share_a_line():
    pairs = [("a", "empty"), ("b", "binary"), ("c", "empty"), ("d", "empty"), ("e", "empty"), ("f", "empty")]
    assert grouped(pairs) == ["a, c, d and 2 more: empty", "b: binary"]


def test_at_most_twenty_reasons_are_listed():
    assert grouped([("a", f"reason {i}") for i in range(20)])[-1] == "a: reason 19"
    lines = grouped([("a", f"reason {i}") for i in range(25)])
    assert (len(lines), lines[-1]) == (21, "and 5 more reasons")


def test_skipped_parts_and_changes_are_headed_by_their_counts():
    assert told([], []) == ""
    assert told([("a", "empty"), ("b", "empty")], [("c", "cut")]) == "2 skipped:\n  a, b: empty\n1 changed:\n  c: cut"


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["empty", "binary", "locked"]))))
def test_every_finding_is_named_or_counted(pairs):
    lines = grouped(pairs)
    assert [line.rpartition(": ")[2] for line in lines] == list(dict.fromkeys(reason for _, reason in pairs))
    counts = 0
    for line in lines:
        names, _, more = line.rpartition(": ")[0].partition(" and ")
        counts += len(names.split(", ")) + int(more.removesuffix(" more") or 0)
    assert counts == len(pairs)
