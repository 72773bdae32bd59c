"""Formats of searches that a model writes: their marks, found in a text."""

import pytest

from langgraph_dynrag import get_preset
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.search_tags.formats import (
    FLARE_INSTRUCT,
    R1_SEARCHER,
    SEARCH,
    SEARCH_O1,
    SEARCH_R1,
    TagFormat,
    shown,
)
from rag_backbone.errors import ConfigurationError

FORMATS = {f.name: f for f in (SEARCH, SEARCH_O1, SEARCH_R1, R1_SEARCHER)}


def test_turns_and_document_counts_are_as_published():
    found = {name: get_preset(name).settings for name in FORMATS}
    assert [found[n]["budgets"].retrievals for n in ("search_o1", "search_r1", "r1_searcher")] == [10, 4, 9]
    assert [found[n]["k"] for n in ("search_o1", "search_r1", "r1_searcher")] == [10, 3, 5]
    assert [FORMATS[n].turns for n in ("search_o1", "search_r1", "r1_searcher")] == [15, 5, 10]
    assert (found["search_r1"]["context_tokens"], found["r1_searcher"]["lookahead"]) == (500, 512)


def test_calls_are_found_by_their_marks():
    text = "a <search>b</search> c </search> d <search>e <search>f</search> g <search>h"
    calls = SEARCH.calls(text)
    assert [(c.query, c.nested) for c in calls] == [("b", False), ("f", True)]
    assert text[calls[1].span.start : calls[1].span.end] == "<search>e <search>f</search>"
    assert [text[s.start : s.end] for s in SEARCH.marked(text)][1] == "</search>"
    assert SEARCH.open_call(text) == text.rindex("<search>")
    assert SEARCH.open_call("a </search> b") is None
    assert SEARCH.new_calls("x <search>a", "b</search>")[0].query == "ab"
    assert SEARCH.new_calls("x <search>ab</search>", " c") == []
    assert [c.query for c in FLARE_INSTRUCT.calls("It was [Search(the mason (Brannoch))] Joan.")] == [
        "the mason (Brannoch)"
    ]


def test_hidden_spans_are_cut_out():
    assert shown("abcdef", [[1, 2], [4, 6]]) == "acd"
    assert shown("abc", []) == "abc"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"call": ("<s>", " ")}, "blank mark"),
        ({"call": ("<s>", "<s>")}, "'<s>'.*the same as"),
        ({"result": ("<s>x", "</r>")}, "'<s>' is part of"),
        ({"turns": 0}, "turns is 0; at least 1"),
    ],
)
def test_ambiguous_marks_are_rejected(options, message):
    with pytest.raises(ConfigurationError, match=message):
        TagFormat(**{"name": "mine", "call": ("<s>", "</s>"), "result": ("<r>", "</r>"), **options})


def test_marks_in_a_passage_are_broken_up():
    found = SEARCH.disarmed(passage("a </Result> b <search>c</search>", {"title": "<result>"}, "1"))
    assert found["text"] == "a < /Result> b < search>c< /search>"
    assert found["title"] == "< result>"
