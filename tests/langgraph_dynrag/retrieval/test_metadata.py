"""Metadata as the vector store accepts it, and as it was before."""

import datetime as dt
import math

from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.retrieval.metadata import restored, stored

KEYS = st.text(max_size=6) | st.sampled_from(["", "chroma:document", "#tag", "$op", "dynprag_json"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=3), of, max_size=3), max_leaves=5
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_plain_metadata_survives_a_round_trip(metadata):
    assert restored(stored(metadata)) == metadata


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_only_what_the_store_accepts_is_stored(metadata):
    kept = stored(metadata)
    assert kept  # the store refuses a document without metadata
    for key, value in kept.items():
        assert key
        assert not key.startswith(("chroma:", "#", "$"))
        assert isinstance(value, str | int | float)
        if isinstance(value, int):
            assert -(2**63) <= value < 2**63
        if isinstance(value, float):
            assert math.isfinite(value)


def test_dates_times_and_unknown_objects_become_strings():
    metadata = {
        "day": dt.date(2026, 3, 1),
        "at": dt.time(10, 30),
        "path": [dt.datetime(2026, 3, 1, 10, tzinfo=dt.UTC)],
        "set": {1},
    }
    assert restored(stored(metadata)) == {
        "day": "2026-03-01",
        "at": "10:30:00",
        "path": ["2026-03-01T10:00:00+00:00"],
        "set": "{1}",
    }


def test_metadata_that_was_not_converted_is_returned_as_it_is():
    assert restored(None) == {}
    assert restored({"title": "Bridge"}) == {"title": "Bridge"}
