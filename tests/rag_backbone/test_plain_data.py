"""Conversion of metadata of any kind to plain data."""

import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel

from rag_backbone.plain_data import NotPlainError, as_plain_data, plain_metadata


class Model(BaseModel):
    when: dt.date


@dataclasses.dataclass
class Author:
    name: str


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2026, 3, 1, 10, 30, tzinfo=dt.UTC), "2026-03-01T10:30:00+00:00"),
        (dt.date(2026, 3, 1), "2026-03-01"),
        (dt.time(10, 30), "10:30:00"),
        (np.datetime64("2026-03-01"), "2026-03-01"),
        (dt.timedelta(hours=1), "1:00:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Author("Ida"), {"name": "Ida"}),
        (Model(when=dt.date(2026, 3, 1)), {"when": "2026-03-01"}),
        ({"tags": ("a", {"b": dt.date(2026, 1, 1)})}, {"tags": ["a", {"b": "2026-01-01"}]}),
        ({3: {"b", "a"}}, {"3": ["a", "b"]}),
        (np.bool_(True), True),
        (np.int64(3), 3),
        (float("nan"), "nan"),
        (2**70, str(2**70)),
    ],
)
def test_values_set_by_loaders_become_plain(value, expected):
    found = as_plain_data(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [b"x", object(), np.zeros(3), dict, (x for x in "ab"), [[b"x"]]])
def test_values_without_a_plain_form_are_reported(value):
    with pytest.raises(NotPlainError):
        as_plain_data(value)
    kept, lost = plain_metadata({"thumb": value, "page": 3}, "a.pdf")
    assert kept == {"page": 3}
    assert len(lost) == 1
    assert "'thumb'" in lost[0]


def test_a_structure_that_contains_itself_is_reported():
    endless = {}
    endless["self"] = endless
    assert plain_metadata({"a": endless}, "a.pdf") == ({}, ["metadata 'a' (nested too deeply) cannot be stored"])


def test_lone_surrogates_are_repaired_at_any_depth():
    kept, _ = plain_metadata({"a\ud800": ["\ud83d\ude00", {"b": "x\udfff"}]}, "a.pdf")
    assert kept == {"a\ufffd": ["\U0001f600", {"b": "x\ufffd"}]}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes() | st.binary() | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text() | st.integers(), VALUES))
def test_any_metadata_can_be_stored_in_json_and_in_a_checkpoint(metadata):
    kept, lost = plain_metadata(metadata, "a.pdf")
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    serde = JsonPlusSerializer()
    assert serde.loads_typed(serde.dumps_typed(kept)) == kept
    given_keys = [k for k, v in metadata.items() if v is not None]
    assert len({str(k) for k in given_keys}) <= len(kept) + len(lost)
