"""Evidence and chat templates as texts: properties, and examples by hand."""

import unicodedata
from enum import Enum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_dynrag.evidence import (
    Passage,
    clean,
    distinct,
    interleaved,
    original_hash,
    passage,
    render,
    within_budget,
)

PHRASE = "So the answer is"
EXEMPLARS = 8


def make(key, text=None, title=""):
    return Passage(id=key, text=text or f"text {key}", title=title, source="s", score=None, metadata={})


def words(text):
    return len(text.split())


# ------------------------------------------------------------------------------------------------------ evidence


def test_numbers_and_strings_of_other_libraries_become_plain_data():
    class Kind(str, Enum):  # noqa: UP042 - whose str() is its name
        NOTE = "note"

    metadata = {
        "score": np.float32(0.5),
        "rank": np.int64(3),
        "title": np.str_("T"),
        "kind": Kind.NOTE,
        "hash": 2**64,
        "share": Fraction(1, 4),
        "float": np.float64(1.5),
        "flag": True,
        "vector": np.zeros(2),
    }
    made = passage("Text.", metadata, None)
    assert (made["score"], type(made["score"])) == (0.5, float)
    wanted = {
        "score": 0.5,
        "rank": 3,
        "title": "T",
        "kind": "note",
        "hash": str(2**64),
        "share": 0.25,
        "float": 1.5,
        "flag": True,
        "metadata_left_out": ["metadata 'vector' (ndarray) cannot be stored"],
    }
    assert made["metadata"] == wanted
    assert {k: type(v) for k, v in made["metadata"].items()} == {k: type(v) for k, v in wanted.items()}
    dumps_typed, loads_typed = JsonPlusSerializer().dumps_typed, JsonPlusSerializer().loads_typed
    assert loads_typed(dumps_typed(made)) == made


@given(st.text())
def test_cleaned_text_is_one_line_without_control_characters(text):
    cleaned = clean(text)
    assert not any(unicodedata.category(c) in {"Cc", "Cs", "Co", "Zl", "Zp"} for c in cleaned)
    assert not set(cleaned) & set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
    assert "  " not in cleaned
    assert cleaned == cleaned.strip()
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",
        "ශ්\u200dරී",
        "র\u200d্যাব",
        "ന്\u200d",
        "ភ្នំ\u200bពេញ",
        "\u06dd١",
        "👩\u200d👩\u200d👧\u200d👦",
        "🧑🏽\u200d🚀",
        "❤\ufe0f\u200d🔥",
        "🏳\ufe0f\u200d🌈",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "葛\U000e0100",
    ],
)
def test_joiners_and_tags_that_change_the_reading_are_kept(text):
    made = passage(text, {"title": text}, None)
    assert (made["text"], made["title"]) == (text, text)
    assert original_hash(made) is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ig\u200bno\u200cre\u200d", "ignore"),
        ("a \u202egnorw\u202c", "a gnorw"),
        ("\u2066x\u2069", "x"),
        ("\u200ex\u200f", "x"),
        ("hi\U000e0069\U000e0067\U000e006e", "hi"),
        ("🏴\U000e0069", "🏴"),
        ("ا\u200c\u200c\u200dب", "ا\u200cب"),
        ("👩\u200d me", "👩 me"),
        ("😀" + "\U000e0150" * 20, "😀\U000e0150"),
        ("Kraft\u00adwerk", "Kraftwerk"),
        ("\ufeffa", "a"),
    ],
)
def test_characters_that_could_hide_text_are_removed(text, left):
    assert clean(text) == left


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_letters_of_every_script_are_kept(text):
    assert clean(text) == text


passages = st.lists(
    st.builds(make, st.sampled_from("abcdef"), st.text("xyz ", min_size=1).filter(str.strip)), max_size=12
)


@given(passages)
def test_distinct_passages_differ_in_id_and_text_and_none_is_lost(given_passages):
    kept = distinct(given_passages)
    assert len({p["id"] for p in kept}) == len(kept) == len({p["text"] for p in kept})
    for p in given_passages:
        assert any(p["id"] == k["id"] or p["text"] == k["text"] for k in kept)
    assert distinct(kept) == kept


@given(st.lists(passages.map(distinct), max_size=4), st.integers(1, 6))
def test_interleaving_takes_rankings_in_turns(rankings, k):
    found = interleaved(rankings, k)
    assert len(found) <= k
    depth = {p["id"]: min(i for r in rankings for i, q in enumerate(r) if q == p) for p in found}
    assert [depth[p["id"]] for p in found] == sorted(depth[p["id"]] for p in found)


@given(passages, st.integers(0, 60))
def test_a_budget_is_never_exceeded_and_truncated_passages_are_named(given_passages, budget):
    chosen = distinct(given_passages)
    kept, affected = within_budget(chosen, budget, words)
    assert sum(words(render([p])) for p in kept) <= budget
    whole = [p for p in kept if p in chosen]
    assert whole == chosen[: len(whole)]  # the best passages come first and are not truncated
    assert {p["id"] for p in chosen} == {p["id"] for p in whole} | set(affected)


def test_the_first_passage_that_does_not_fit_is_truncated():
    long = make("b", " ".join(f"w{i}" for i in range(100)))
    kept, affected = within_budget([make("a", "one two"), long, make("c", "x")], 33, words)
    assert [p["id"] for p in kept] == ["a", "b"]
    assert kept[1]["text"].startswith("w0 w1 ")
    assert kept[1]["text"].endswith(" ...")
    assert affected == ["b", "c"]
    assert within_budget([long], 10, words) == ([], ["b"])  # ten words would be a fragment


def test_passages_are_numbered_and_titled():
    shown = render(
        [make("a", "Built in 1954.", "Bridge"), make("b", "Bridge of sighs.", "Bridge"), make("c", "A town.")]
    )
    assert shown == "[1] Bridge: Built in 1954.\n[2] Bridge of sighs.\n[3] A town."


def test_a_passage_keeps_plain_metadata():
    made = passage("Text.", {"title": "T", "score": True, "date": object(), "year": 1954, "source": "a.md"}, "7")
    assert made == Passage(
        id="7",
        text="Text.",
        title="T",
        source="a.md",
        score=None,
        metadata={
            "title": "T",
            "score": True,
            "year": 1954,
            "source": "a.md",
            "metadata_left_out": ["metadata 'date' (object) cannot be stored"],
        },
    )
    same, other = passage("Text.", {"source": "a.md"}, None), passage("Text.", {"source": "b.md"}, None)
    assert same["id"] == passage("Text.\n", {"source": "a.md"}, None)["id"] != other["id"]
