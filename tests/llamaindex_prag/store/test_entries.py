"""The contents of a store's tables: names, JSON, description, and what a removal takes along."""

import json

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.errors import AdapterRefusedError, StoreError
from llamaindex_prag.store.entries import FORMAT, VERSION, as_json, check_format, from_json, hash_bytes, side_name
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.store.made import made_key
from tests.llamaindex_prag.store.refused import refuses


def described(folder, description):
    with lmdb.open(str(folder), max_dbs=16) as env:
        db = env.open_db(b"meta")
        with env.begin(write=True) as transaction:
            transaction.put(b"format", description, db=db)


def test_a_newer_format_is_refused(folder):
    described(folder, b'{"format": "dynprag adapter store", "version": 2, "tables": "quite other ones"}')
    refuses(folder, "format version 2; this release reads up to 1: upgrade")


@pytest.mark.parametrize("description", [b"{}", b"not json", b'{"format": "another", "version": 1}', b"[]"])
def test_another_description_is_refused(folder, description):
    described(folder, description)
    refuses(folder, "not an adapter store")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    )
)
def test_plain_data_survive_json(value):
    assert from_json(memoryview(as_json(value))) == value


def test_lone_surrogates_survive_json():
    assert from_json(as_json({"\ud83d": "\udce9"})) == {"\ud83d": "\udce9"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", [object()]])
def test_other_values_are_refused(value):
    with pytest.raises(AdapterRefusedError, match="only plain JSON data can be stored"):
        as_json(value)


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "a" * 66, "0x" + "a" * 62, "ab " * 32])
def test_a_hash_has_64_hexadecimal_digits(text):
    assert hash_bytes("0f" * 32) == b"\x0f" * 32
    with pytest.raises(ConfigurationError, match="a text's hash is '.*'; it must be 64 hexadecimal digits"):
        hash_bytes(text)


def test_the_side_entries_of_a_text_are_adjacent():
    names = sorted(side_name(table, key) for table in ("a", "b") for key in ("1", "1/x", "2"))
    assert [name.split(b"\0")[0] for name in names] == [b"1", b"1", b"1/x", b"1/x", b"2", b"2"]


def test_descriptions_of_this_format_are_accepted_up_to_this_version():
    check_format(None)
    for version in range(1, VERSION + 1):
        check_format(json.dumps({"format": FORMAT, "version": version}).encode())
    with pytest.raises(StoreError, match=f"format version {VERSION + 1}; this release reads up to {VERSION}: upgrade"):
        check_format(json.dumps({"format": FORMAT, "version": VERSION + 1}).encode())
    with pytest.raises(StoreError, match="calls itself 'letters'"):
        check_format(b'{"format": "letters", "version": 1}')


def test_removing_a_text_leaves_the_side_entries_of_texts_that_begin_alike(store):
    text = made_key().text
    store.put_json("table", text, 1)
    store.put_json("table", f"{text}/v2", 2)
    store.put_json("table", f"{text}0", 3)
    generation = store.generation
    store.remove(text)
    assert [store.get_json("table", key) for key in (text, f"{text}/v2", f"{text}0")] == [None, None, 3]
    assert store.generation > generation
