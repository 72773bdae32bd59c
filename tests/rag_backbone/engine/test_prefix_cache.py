"""The prefix cache compared with a plain specification of its behaviour."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.prefix_cache import PrefixCache, common_prefix

CONFIG = LlamaConfig(num_hidden_layers=2, num_key_value_heads=1, num_attention_heads=1, hidden_size=2, vocab_size=8)
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def sequence(ids: list[int], start: int = 0, into: SequenceCache | None = None) -> SequenceCache:
    """Return a cache whose keys are the ids themselves, so that its content can be checked."""
    cache = into or SequenceCache.empty(CONFIG)
    states = torch.tensor(ids[start:], dtype=torch.float32).view(1, 1, -1, 1).expand(1, 1, -1, 2)
    for layer in cache.cache.layers:
        layer.update(states, states * 10)
    cache.ids = list(ids)
    return cache


def held(cache: SequenceCache) -> list[int]:
    keys = cache.cache.layers[1].keys
    return [] if keys is None else [int(x) for x in keys[0, 0, :, 0]]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), IDS), max_size=8))
def test_the_longest_prefix_with_the_same_key_is_found(prompts):
    cache = PrefixCache(1 << 30)
    known: dict[str, list[list[int]]] = {"a": [], "b": []}
    for key, ids in prompts:
        found = cache.take(key, ids)
        longest = max((common_prefix(k, ids, limit=len(ids) - 1) for k in known[key]), default=0)
        assert (0 if found is None else len(found.ids)) == longest
        if found is not None:
            assert found.ids == ids[:longest]
            assert held(found) == ids[:longest]
        cache.put(key, sequence(ids, longest, found))
        known[key].append(ids)
        # Continuing a cache that was taken does not change the other entries.
        for entry_key, entry in cache._entries:
            assert held(entry) == entry.ids
            assert entry.ids in known[entry_key]


def test_an_entry_that_one_sequence_continues_is_found_by_others_as_well():
    cache = PrefixCache(1 << 30)
    cache.put(None, sequence([1, 2, 3]))
    first, second = cache.take(None, [1, 2, 3, 4]), cache.take(None, [1, 2, 3, 5])
    assert held(first) == held(second) == [1, 2, 3]
    cache.put(None, sequence([1, 2, 3, 4], 3, first))
    assert len(cache) == 1  # the longer one includes the shorter one
    assert held(second) == [1, 2, 3]


def test_a_branch_is_a_copy():
    cache = PrefixCache(1 << 30)
    cache.put(None, sequence([1, 2, 3]))
    branch = cache.take(None, [1, 2, 0, 0])
    assert len(cache) == 1
    assert branch.ids == [1, 2]
    branch.cache.layers[0].update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert held(cache.take(None, [1, 2, 3, 4])) == [1, 2, 3]


def test_the_least_recently_used_entry_is_evicted_first():
    one = sequence([1] * 5).nbytes
    cache = PrefixCache(2 * one + 1)
    for ids in ([1] * 5, [2] * 5):
        cache.put(None, sequence(ids))
    cache.put(None, cache.take(None, [1] * 6))  # used again
    cache.put(None, sequence([0] * 5))
    assert [entry.ids[0] for _, entry in cache._entries] == [1, 0]


def test_an_entry_larger_than_the_limit_is_not_kept():
    cache = PrefixCache(10)
    cache.put(None, sequence([1, 2]))
    assert len(cache) == 0


def test_a_sequence_in_progress_is_found_and_copied():
    cache, running = PrefixCache(1 << 30), sequence([1, 2, 3])
    cache.share("a", running)
    assert cache.known("a", [1, 2, 5]) == 2
    assert cache.known("a", [1, 2, 3]) == 2  # the last token must be computed
    assert cache.known("b", [1, 2, 5]) == 0
    found = cache.take("a", [1, 2, 5, 6])
    assert held(found) == found.ids == [1, 2]
    sequence([1, 2, 3, 4], 3, running)
    assert held(found) == [1, 2]
    assert held(cache.take("a", [1, 2, 3, 4, 5])) == [1, 2, 3, 4]
    assert len(cache) == 0


def test_an_abandoned_sequence_is_found_only_if_it_was_put():
    cache = PrefixCache(1 << 30)
    dropped, kept = sequence([1, 2, 3]), sequence([4, 5, 6])
    cache.share(None, dropped)
    cache.share(None, kept)
    cache.put(None, kept)
    del dropped, kept
    assert cache.known(None, [1, 2, 3, 4]) == 0
    assert cache.known(None, [4, 5, 6, 7]) == 3


def test_after_clearing_sequences_in_progress_are_not_found_either():
    cache, running = PrefixCache(1 << 30), [sequence([1, 2, 3]), sequence([1, 2, 3])]
    for key, one in zip("ab", running, strict=True):
        cache.share(key, one)
    assert [cache.known(key, [1, 2, 9]) for key in "ab"] == [2, 2]
    cache.clear()
    assert [cache.known(key, [1, 2, 9]) for key in "ab"] == [0, 0]
