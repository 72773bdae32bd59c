"""A store in one process: what it keeps, refuses, returns and removes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import AdapterMissingError, AdapterRefusedError
from llamaindex_prag.store import AdapterStore, LMDBStore
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.store.made import (
    DISTILL,
    LAYOUT,
    MODEL,
    OTHER_MODEL,
    made_adapter,
    made_key,
    made_layout,
    opened,
)
from tests.llamaindex_prag.store.refused import refuses


def test_lmdb_store_implements_adapter_store(store):
    assert isinstance(store, AdapterStore)


def test_stored_adapters_are_there_after_reopening(tmp_path):
    with opened(tmp_path / "store") as store:
        store.put(made_key(), made_adapter(), {"steps": 40, "text": "naïve 東京"})
    with opened(tmp_path / "store", readonly=True) as store:
        found = store.get(made_key())
        np.testing.assert_array_equal(found.buffer, made_adapter().buffer)
        assert (found.layout, found.scale) == (LAYOUT, 16.0)
        assert store.record(made_key()) == {"steps": 40, "text": "naïve 東京"}
        assert store.layout(made_key()) == LAYOUT
        assert store.keys() == [made_key()]
        assert made_key() in store
        assert len(store) == 1


@pytest.mark.parametrize(("encoding", "error"), [("float32", 0), ("bfloat16", 0.004), ("int4", 0.12)])
def test_adapters_are_read_into_a_buffer(tmp_path, encoding, error):
    adapter = made_adapter(layout=made_layout(layers=2))
    out = np.empty(adapter.layout.size, np.float32)
    with opened(tmp_path / "store", encoding=encoding) as store:
        store.put(made_key(), adapter, {})
        assert store.read_into(made_key(), out) == adapter.scale
        np.testing.assert_array_equal(out, store.get(made_key()).buffer)
    assert np.linalg.norm(out - adapter.buffer) <= error * np.linalg.norm(adapter.buffer)


def test_a_store_can_hold_several_encodings(tmp_path):
    for encoding in ("float32", "bfloat16", "int4"):
        with opened(tmp_path / "store", encoding=encoding) as store:
            store.put(made_key(encoding), made_adapter(), {})
    with opened(tmp_path / "store") as store:
        assert store.verify().ok
        assert len(store) == 3


def test_missing_entries_are_none(store):
    assert store.get(made_key()) is None
    assert store.record(made_key()) is None
    assert store.layout(made_key()) is None
    assert store.get_json("questions", made_key().text) is None
    assert made_key() not in store
    assert made_key(model=OTHER_MODEL) not in store
    assert "anything" not in store
    assert store.keys() == []
    assert store.remove(made_key()) == 0
    with pytest.raises(AdapterMissingError, match="no adapter of text"):
        store.read_into(made_key(), np.empty(LAYOUT.size, np.float32))


def test_adapters_of_two_recipes_do_not_mix(store):
    store.put(made_key(), made_adapter(1), {})
    store.put(made_key(recipe=DISTILL), made_adapter(2, made_layout(1)), {})
    assert store.get(made_key()).layout == LAYOUT
    assert store.get(made_key(recipe=DISTILL)).layout == made_layout(1)


def test_an_adapter_of_another_model_is_refused(store):
    with pytest.raises(AdapterRefusedError, match=f"{OTHER_MODEL[:12]}.*{MODEL[:12]}"):
        store.put(made_key(model=OTHER_MODEL), made_adapter(), {})
    with pytest.raises(AdapterRefusedError, match="one model only"):
        store.get(made_key(model=OTHER_MODEL))


def test_a_recipe_has_one_layout(store):
    store.put(made_key("first"), made_adapter(), {})
    other = Layout(LAYOUT.targets, 3)
    with pytest.raises(AdapterRefusedError, match=r"rank 3.*rank 2.*another recipe"):
        store.put(made_key("second"), made_adapter(layout=other), {})
    assert made_key("second") not in store


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "not finite"), (np.inf, "not finite"), (2e4, "diverged"), (-2e4, "diverged")]
)
def test_values_that_training_does_not_produce_are_refused(store, value, reason):
    adapter = made_adapter()
    adapter.buffer[3] = value
    with pytest.raises(AdapterError, match=reason):
        store.put(made_key(), adapter, {})
    assert len(store) == 0


def test_a_record_must_be_plain_data(store):
    for record in ({"a": object()}, {"a": float("nan")}, {"a": {1, 2}}):
        with pytest.raises(AdapterRefusedError, match="plain JSON"):
            store.put(made_key(), made_adapter(), record)


def test_invalid_hashes_are_refused(store):
    for wrong in ("", "abc", "z" * 64):
        with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
            store.remove(wrong)


def test_the_generation_rises_when_copies_become_stale(store):
    seen = [store.generation]

    def rose():
        seen.append(store.generation)
        return seen[-1] > seen[-2]

    store.put(made_key(), made_adapter(), {})
    assert not rose()
    store.put(made_key(), made_adapter(), {"again": True})
    assert not rose()
    store.put_json("questions", made_key().text, ["?"])
    assert not rose()
    store.put(made_key(), made_adapter(1), {})
    assert rose()
    store.remove(made_key("none"))
    assert not rose()
    store.remove(made_key())
    assert rose()
    store.put(made_key(), made_adapter(), {}, owners=["a"])
    assert not rose()
    store.remove_document("a")
    assert rose()
    store.gc()
    assert not rose()


def test_removing_a_text_removes_everything_about_it(store):
    text = made_key().text
    for recipe in (made_key().recipe, DISTILL):
        key = made_key() if isinstance(recipe, str) else made_key(recipe=recipe)
        store.put(key, made_adapter(), {"of": "it"}, owners=["document"])
    store.put(made_key("neighbour"), made_adapter(), {})
    store.put_json("questions", text, ["?"])
    store.put_json("questions", f"{text}/v2", ["??"])
    store.put_json("questions", "something else", ["kept"])
    assert store.remove(text) == 2
    assert store.keys() == [made_key("neighbour")]
    assert store.get(made_key()) is None
    assert store.record(made_key()) is None
    assert store.get_json("questions", text) is None
    assert store.get_json("questions", f"{text}/v2") is None
    assert store.get_json("questions", "something else") == ["kept"]
    assert store.owners(text) == []
    assert store.texts("document") == []
    assert store.stats().documents == 0


def test_removing_one_adapter_keeps_the_text_for_the_others(store):
    store.put(made_key(), made_adapter(), {}, owners=["document"])
    store.put(made_key(recipe=DISTILL), made_adapter(), {})
    store.put_json("questions", made_key().text, ["?"])
    assert store.remove(made_key()) == 1
    assert store.keys() == [made_key(recipe=DISTILL)]
    assert store.get_json("questions", made_key().text) == ["?"]
    assert store.remove(made_key(recipe=DISTILL)) == 1
    assert store.get_json("questions", made_key().text) is None
    assert store.owners(made_key().text) == []


def test_json_data_can_be_stored_within_limits(store):
    store.put_json("questions", "a key", {"q": ["Wer?", "誰?"], "n": None})
    store.put_json("answers", "a key", 7)
    assert store.get_json("questions", "a key") == {"q": ["Wer?", "誰?"], "n": None}
    assert store.get_json("answers", "a key") == 7
    for table, key in (("t", "k" * 600), ("t\0", "k"), ("t", "k\0")):
        with pytest.raises(ConfigurationError, match="at most 511"):
            store.put_json(table, key, 1)


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigurationError, match="encoding is 'int8'"):
        opened(tmp_path / "store", encoding="int8")
    with pytest.raises(ConfigurationError, match="map_size is 5"):
        opened(tmp_path / "store", map_size=5)
    assert not (tmp_path / "store").exists()


def test_an_adapter_whose_buffer_does_not_fit_is_refused(store):
    with pytest.raises(AdapterError, match="needs 128 float32 values"):
        store.put(made_key(), Adapter(LAYOUT, np.zeros(5, np.float32), 1.0), {})


def test_the_whole_subpackage_works_without_torch():
    program = (
        "import sys, json; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import llamaindex_prag.store as s\n"
        "print(json.dumps([getattr(s, n).__name__ for n in s.__all__ if n != 'Encoding']))"
    )
    names = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert LMDBStore.__name__ in names


def test_a_store_of_another_model_is_refused(folder):
    refuses(folder, f"fingerprint {MODEL[:12]}.*yours has {OTHER_MODEL[:12]}", model=OTHER_MODEL)
    with opened(folder) as store:
        assert len(store) == 4


def test_only_an_existing_store_can_be_opened_without_a_model(folder, tmp_path):
    with opened(folder, model=None) as store:
        assert store.model == MODEL
    refuses(tmp_path / "new", "give the model's fingerprint", model=None)
