"""Detokenisation and stop strings, for any way of splitting a text into tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import Detokenizer, StopStrings
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_tokenizer


@given(
    st.lists(st.text("ab\n", max_size=3), max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)
)
def test_text_ends_before_the_first_stop_string_for_any_tokenisation(pieces, stop):
    stops = StopStrings(stop)
    out = []
    for i, piece in enumerate(pieces):
        out += stops.push(TokenStep(i, i, piece, 0.0))
        if stops.found is not None:
            break
    else:
        out += stops.flush()
    whole = "".join(pieces)
    # A stop string is found only once it is complete; of several, the first complete one counts.
    ends = [(whole.find(s) + len(s), whole.find(s), s) for s in stop if s in whole]
    text = "".join(s.text for s in out)
    assert (stops.found is not None) == bool(ends)
    if not ends:
        assert text == whole
        assert [s.index for s in out] == list(range(len(pieces)))
    else:
        assert stops.found in stop
        assert not any(s in text for s in stop)
        assert whole.startswith(text + stops.found)


def test_a_step_is_passed_on_as_soon_as_it_is_final():
    stops = StopStrings(["\n\nQuestion"])
    assert [s.text for s in stops.push(TokenStep(0, 0, "The end.", 0.0))] == ["The end."]
    assert stops.push(TokenStep(1, 1, "\n", 0.0)) == []
    assert stops.push(TokenStep(2, 2, "\nQ", 0.0)) == []
    assert [s.text for s in stops.push(TokenStep(3, 3, "uiet", 0.0))] == ["\n", "\nQ", "uiet"]


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ConfigurationError, match="empty"):
        StopStrings(["a", ""])


@given(st.text(min_size=1, max_size=40))
def test_joined_pieces_are_the_text(text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text).input_ids
    detokenizer = Detokenizer(tokenizer, tokenizer("Before: ").input_ids)
    pieces = [detokenizer.push(i) for i in ids]
    assert "".join(pieces) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_is_returned_with_its_last_token():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("\U0001f98a").input_ids  # a fox: four bytes, not among the merges
    assert len(ids) > 1
    detokenizer = Detokenizer(tokenizer, [])
    assert [detokenizer.push(i) for i in ids] == [""] * (len(ids) - 1) + ["\U0001f98a"]
