"""The adapter that documents start from: finding it, and the merge that adds it once, against dense matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.adapters.stacking import stacked
from llamaindex_prag.adapters.start import start_key
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.placer import Placer
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


@pytest.fixture
def start(lm):
    return AdapterKey(lm.fingerprint, "a" * 64, text_hash("warm-up"))


@pytest.fixture
def started(lm, store, start):
    """A model with adapters of three texts and the adapter that they start from."""
    made = ParametricModel(lm, store, recipe=get_recipe("prag", start=start.digest), max_adapters=4).attach()
    for i, key in enumerate([*map(made.key, TEXTS), start]):
        store.put(key, Adapter(made.layout, random_values(made.layout, i), SCALE), {})
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


def test_a_model_computes_with_its_recipes_start_once(lm, started, start):
    selection = started.select([started.key(t) for t in TEXTS[:2]], merge="shared_once")
    assert (selection.keys[-1], selection.weights) == (start, (1.0, 1.0, -1.0))
    updates = [(random_values(started.layout, i), SCALE) for i in (0, 1)]
    with torch.inference_mode(), started.bank.activate([selection]):
        found = lm.model(IDS).logits
    with torch.inference_mode():
        common = random_values(started.layout, 3)
        expected = with_update(lm.model, started.layout, [*updates, (common, -SCALE)])(IDS).logits
        summed = with_update(lm.model, started.layout, updates)(IDS).logits
    assert torch.allclose(found, expected, atol=1e-3)
    assert (found - summed).abs().max() > 0.1
    assert started.answer("Who?", documents=TEXTS[:2], merge="shared_once") != ""
    assert started.to_peft(TEXTS[:2], merge="shared_once") is not None


def test_a_start_is_found_by_its_digest_until_it_is_removed(store, started, start):
    assert start_key(store, started.recipe) == start
    assert start_key(store, get_recipe("prag")) is None
    two = [started.key(t) for t in TEXTS[:2]]
    before = started.select(two, merge="shared_once")
    store.remove(start)
    reason = f"of the recipe 'prag' start from the adapter {start.digest[:12]}…, but the store does not hold it"
    with pytest.raises(AdapterError, match=reason):
        started.select(two, merge="shared_once")
    store.put(start, Adapter(started.layout, random_values(started.layout, 9), SCALE), {})
    after = started.select(two, merge="shared_once")
    assert after.keys == before.keys == (*two, start)
    assert after.version > before.version  # so that no prefix computed with the old start is used


# ------------------------------------------------------------------------------------------------- refused before work


def test_merging_with_a_start_that_is_not_there_is_refused_before_work(lm, store, started, start):
    plain = ParametricModel(lm, store, recipe="prag")
    missing = ParametricModel(lm, store, recipe=get_recipe("prag", start="b" * 64))
    for refused, error, reason in (
        (plain, ConfigurationError, r"the recipe 'prag' has no start; train with recipe.changed\(start=warm_up"),
        (missing, AdapterError, "but the store does not hold it; train it with warm_up"),
    ):
        with pytest.raises(error, match=reason):
            refused.select([refused.key(TEXTS[0])], merge="shared_once")
        with pytest.raises(error, match=reason):
            refused.answer("Who?", merge="shared_once")
        with pytest.raises(error, match=reason):
            Placer(refused, merge="shared_once")


def test_adapters_without_the_start_and_too_many_are_refused(lm, started):
    two = [started.key(t) for t in TEXTS[:2]]
    with pytest.raises(AdapterError, match="1 of 2 are translated"):
        started.select([two[0], AdapterKey(lm.fingerprint, "f" * 64, two[1].text)], merge="shared_once")
    with pytest.raises(AdapterError, match="4 adapters were selected, and merge='shared_once' adds"):
        started.select([started.key(f"text {i}") for i in range(4)], merge="shared_once")
    with pytest.raises(ConfigurationError, match="such as LMDBStore, but InMemory does not"):
        start_key(InMemory(started.layout, {}), started.recipe)
    with pytest.raises(AdapterError, match="needs the shared part"):
        ActiveAdapters.of(keys("a", "b"), merge="shared_once")
