"""What the adapters of a recipe share: its key, its values, and merges that add it once, against dense matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.adapters.shared_part import mean_key, mean_update, shared_part
from llamaindex_prag.adapters.stacking import stacked
from llamaindex_prag.errors import StoreError
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import InMemory, key_of, keys, random_values, with_update
from tests.tiny import tiny_llama, tiny_tokenizer

SCALE = 2.0
TEXTS = ["text 0", "text 1", "text 2"]
IDS = torch.tensor([[5, 9, 13, 21, 34, 55]])


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def store(lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as opened:
        yield opened


def filled(lm, store, texts=TEXTS, **changes):
    made = ParametricModel(lm, store, recipe=get_recipe("prag", **changes), max_adapters=4).attach()
    for i, text in enumerate(texts):
        store.put(made.key(text), Adapter(made.layout, random_values(made.layout, i), SCALE), {})
    return made


def dense(layout, buffer, scale=1.0):
    return [scale * b.astype(np.float64) @ a.astype(np.float64) for _, a, b in layout.factors(buffer)]


# ------------------------------------------------------------------------------------------------- merging, by formula


@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    rank=st.integers(1, 3),
    strengths=st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=4),
)
@settings(max_examples=40)
def test_the_update_is_the_shared_part_once_and_what_each_adapter_adds_to_it(sizes, rank, strengths):
    layout = Layout(tuple(Target(f"t{i}", *size) for i, size in enumerate(sizes)), rank)
    names = [f"text {i}" for i in range(len(strengths))]
    values = {name: random_values(layout, i) for i, name in enumerate([*names, "shared"])}
    source = InMemory(layout, values, scale=SCALE)
    selection = ActiveAdapters.of(keys(*names), merge="shared_once", strength=strengths, shared=key_of("shared"))
    found = stacked(layout, source, selection)
    common = dense(layout, values["shared"], SCALE)
    own = [dense(layout, values[name], SCALE) for name in names]
    for number, update in enumerate(dense(found.layout, found.buffer)):
        c = common[number]
        expected = max(strengths) * c + sum(s * (d[number] - c) for s, d in zip(strengths, own, strict=True))
        assert np.allclose(update, expected, atol=1e-4)
    halved = stacked(layout, source, selection.times(0.5))
    for update, half in zip(dense(found.layout, found.buffer), dense(halved.layout, halved.buffer), strict=True):
        assert np.allclose(half, update / 2, atol=1e-4)


def test_a_single_document_is_its_adapter_exactly():
    one = ActiveAdapters.of(keys("a"), merge="shared_once", strength=0.5)
    assert one == ActiveAdapters.of(keys("a"), strength=0.5)
    assert ActiveAdapters.of(keys("a", "a"), merge="shared_once") == ActiveAdapters.of(keys("a"))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_documents_that_hold_nothing_but_the_shared_part_add_it_once(layout, k):
    common = random_values(layout, 0)
    names = [f"text {i}" for i in range(k)]
    source = InMemory(layout, dict.fromkeys([*names, "shared"], common), SCALE)
    found = stacked(layout, source, ActiveAdapters.of(keys(*names), merge="shared_once", shared=key_of("shared")))
    for update, expected in zip(dense(found.layout, found.buffer), dense(layout, common, SCALE), strict=True):
        assert np.allclose(update, expected, atol=1e-4)


def test_a_model_computes_with_the_shared_part_once(lm, store):
    model = filled(lm, store)
    selection = model.select([model.key(t) for t in TEXTS[:2]], merge="shared_once")
    mean = store.get(shared_part(store, model.recipe))
    updates = [(random_values(model.layout, i), SCALE) for i in (0, 1)]
    with torch.inference_mode(), model.bank.activate([selection]):
        found = lm.model(IDS).logits
    with torch.inference_mode():
        expected = with_update(lm.model, model.layout, [*updates, (mean.buffer, -1.0)])(IDS).logits
        summed = with_update(lm.model, model.layout, updates)(IDS).logits
    assert torch.allclose(found, expected, atol=1e-3)
    assert (found - summed).abs().max() > 0.1
    assert model.answer("Who?", documents=TEXTS[:2], merge="shared_once") != ""
    assert model.to_peft(TEXTS[:2], merge="shared_once") is not None


# ------------------------------------------------------------------------------------------------------------ the mean


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    rank=st.integers(1, 3),
    count=st.integers(1, 4),
)
@settings(max_examples=40)
def test_the_mean_is_the_truncated_singular_value_decomposition_of_the_dense_mean(sizes, rank, count):
    layout = Layout(tuple(Target(f"t{i}", *size) for i, size in enumerate(sizes)), rank)
    adapters = [Adapter(layout, random_values(layout, i), 1.0 + i) for i in range(count)]
    found, share = mean_update(adapters)
    kept = total = 0.0
    for number, update in enumerate(dense(layout, found.buffer, found.scale)):
        mean = sum(dense(layout, a.buffer, a.scale)[number] for a in adapters) / count
        u, s, v = np.linalg.svd(mean, full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        assert np.linalg.norm(mean - update) <= np.linalg.norm(mean - best) + 1e-5
        kept, total = kept + (s[:rank] ** 2).sum(), total + (s**2).sum()
    assert share == pytest.approx(kept / total, abs=1e-6)
    assert np.isfinite(found.buffer).all()


def test_the_mean_of_equal_adapters_is_that_adapter(layout):
    same = Adapter(layout, random_values(layout, 0), SCALE)
    found, share = mean_update([same, same, same])
    assert share == pytest.approx(1.0)
    for update, expected in zip(dense(layout, found.buffer), dense(layout, same.buffer, SCALE), strict=True):
        assert np.allclose(update, expected, atol=1e-5)


def test_the_mean_is_computed_once_and_kept_until_a_member_is_removed(lm, store):
    model = filled(lm, store)
    two = [model.key(t) for t in TEXTS[:2]]
    first = model.select(two, merge="shared_once")
    key = mean_key(store.model, model.recipe)
    assert (first.keys[-1], first.weights) == (key, (1.0, 1.0, -1.0))
    assert sorted(store.record(key)["members"]) == sorted(text_hash(t) for t in TEXTS)
    before = store.get(key).buffer
    store.put(model.key("text 3"), Adapter(model.layout, random_values(model.layout, 3), SCALE), {})
    assert model.select(two, merge="shared_once") == first
    assert np.array_equal(store.get(key).buffer, before)
    assert store.gc().removed_adapters == 0  # it has an owner
    store.remove(model.key(TEXTS[2]))
    after = model.select(two, merge="shared_once")
    assert text_hash(TEXTS[2]) not in store.record(key)["members"]
    assert not np.array_equal(store.get(key).buffer, before)
    assert after.version > first.version  # so that no prefix computed with the old mean is used


def test_the_adapter_that_documents_start_from_is_their_shared_part(lm, store):
    start = AdapterKey(lm.fingerprint, "a" * 64, text_hash("warm-up"))
    model = filled(lm, store, start=start.digest)
    two = [model.key(t) for t in TEXTS[:2]]
    with pytest.raises(
        AdapterError, match=f"needs the adapter {start.digest[:12]}…, which the documents of the recipe"
    ):
        model.select(two, merge="shared_once")
    store.put(start, Adapter(model.layout, random_values(model.layout, 9), SCALE), {})
    assert model.select(two, merge="shared_once").keys == (*two, start)


# ------------------------------------------------------------------------------------------------- refused before work


def test_what_has_no_known_shared_part_is_refused(lm, store, tmp_path):
    model = filled(lm, store, TEXTS[:1])
    assert len(model.select([model.key(TEXTS[0])], merge="shared_once")) == 1
    two = [model.key(t) for t in TEXTS[:2]]
    with pytest.raises(AdapterError, match="the recipe has no start and the store has 1 of its adapters"):
        model.select(two, merge="shared_once")
    with pytest.raises(AdapterError, match="1 of 2 are translated"):
        model.select([two[0], AdapterKey(lm.fingerprint, "f" * 64, two[1].text)], merge="shared_once")
    with pytest.raises(AdapterError, match="4 adapters were selected, and merge='shared_once' adds"):
        model.select([model.key(f"text {i}") for i in range(4)], merge="shared_once")
    with pytest.raises(ConfigurationError, match="such as LMDBStore, but InMemory does not"):
        shared_part(InMemory(model.layout, {}), model.recipe)
    with pytest.raises(AdapterError, match="needs the shared part"):
        ActiveAdapters.of(keys("a", "b"), merge="shared_once")


def test_a_read_only_store_needs_a_mean_that_was_kept_before(lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:
        recipe = filled(lm, store).recipe
    opened = LMDBStore(tmp_path / "store", model=lm.fingerprint, readonly=True)
    with opened as store, pytest.raises(StoreError, match="readonly=True"):
        shared_part(store, recipe)
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32") as store:
        kept = shared_part(store, recipe)
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, readonly=True) as store:
        assert shared_part(store, recipe) == kept
