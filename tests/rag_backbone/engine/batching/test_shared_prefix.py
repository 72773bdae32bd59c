"""Sequences that share a prefix: how they are grouped, and that reading the prefix once gives the same results."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.engine import model_runner as model_call
from rag_backbone.engine.batching import sequence_attention as row_attention
from rag_backbone.engine.batching.shared_prefix import (
    LEAST,
    SharedPrefix,
    attend_with_shared_prefix,
    find_shared_prefixes,
)
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from tests.rag_backbone.engine.shift import Shift, ShiftBackend
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

COMMON = [3 + (7 * n) % 300 for n in range(LEAST + 6)]


def common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def test_a_group_consists_of_the_sequences_that_save_the_most_reading():
    a, b = [1] * 10, [2] * 10
    rows = [[*a, 5], [*a[:4], 6], [*a, 7], b, [*a, 8], [*b[:6], 3]]
    # Three sequences sharing ten tokens save twenty reads; with the fourth, which shares four, they would save twelve.
    assert find_shared_prefixes("kkkkkk", rows, least=3) == [SharedPrefix((0, 2, 4), 10), SharedPrefix((3, 5), 6)]
    assert find_shared_prefixes("kkjkjj", rows, least=3) == [
        SharedPrefix((0, 1), 4),
        SharedPrefix((2, 4), 10),
    ]  # under other adapters
    assert find_shared_prefixes("kkkkkk", rows, least=11) == []


def test_adding_a_sequence_that_shares_little_may_be_worthwhile():
    assert find_shared_prefixes("kkk", [[1, 1, 1, 1], [1, 1, 1, 2], [1, 1, 2, 2]], least=1) == [
        SharedPrefix((0, 1, 2), 2)
    ]


@given(st.lists(st.tuples(st.sampled_from("kj"), st.lists(st.integers(0, 1), max_size=6)), max_size=8))
def test_groups_contain_only_sequences_that_share_a_prefix(rows):
    keys, ids = [key for key, _ in rows], [list(found) for _, found in rows]
    groups = find_shared_prefixes(keys, ids, least=2)
    members = [row for group in groups for row in group.rows]
    assert len(members) == len(set(members))
    for group in groups:
        first, *others = group.rows
        assert others
        assert list(group.rows) == sorted(group.rows)
        assert group.length >= 2
        assert group.length == min(common(ids[first], ids[row]) for row in others)
        assert {keys[row] for row in group.rows} == {keys[first]}
    for a in range(len(ids)):  # ungrouped sequences share no prefix
        for b in range(a):
            if a not in members and b not in members:
                assert keys[a] != keys[b] or common(ids[a], ids[b]) < 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_sequence_gets_the_attention_over_its_own_keys(dtype):
    """The formula is `softmax(q K^T * scaling) V`, computed for each sequence and head in float64."""
    torch.manual_seed(0)
    lengths, known = [12, 7, 9], 7
    query = torch.randn(3, 6, 1, 8).to(dtype)
    states = [(torch.randn(1, 2, n, 8).to(dtype), torch.randn(1, 2, n, 5).to(dtype)) for n in lengths]
    for key, value in states[1:]:
        key[:, :, :known], value[:, :, :known] = states[0][0][:, :, :known], states[0][1][:, :, :known]
    output, weights = attend_with_shared_prefix(query, states, known, 0.3)
    assert output.shape == (3, 1, 6, 5)
    for row, (key, value) in enumerate(states):
        assert weights[row].shape == (1, 6, 1, lengths[row])
        for head in range(6):
            k, v = key[0, head // 3].double(), value[0, head // 3].double()
            exact = torch.softmax(k @ query[row, head, 0].double() * 0.3, 0)
            assert torch.allclose(weights[row][0, head, 0].double(), exact, atol=1e-6)
            tolerance = 1e-6 if dtype == torch.float32 else 2e-2
            assert torch.allclose(output[row, 0, head].double(), exact @ v, atol=tolerance)


def requests(**options):
    """Return seven requests with two shared prefixes, and one that shares nothing."""
    other = [id_ + 1 for id_ in COMMON]
    beginnings = [COMMON, COMMON, other, COMMON, other, [9, 8, 7], COMMON[:-2], other]
    ends = [[5 + i, *range(20 + i, 26 + 2 * i)] for i in range(8)]
    return [
        Request([*begin, *end], 6 + i, signals=Signals(entropy=True, attention=True), **options)
        for i, (begin, end) in enumerate(zip(beginnings, ends, strict=True))
    ]


def seen(monkeypatch):
    """Record the groups of every step from now on."""
    found, original = [], model_call.find_shared_prefixes

    def watched(*args):
        found.append(original(*args))
        return found[-1]

    monkeypatch.setattr(model_call, "find_shared_prefixes", watched)
    return found


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, lambda: tiny_gemma3(sliding_window=6), tiny_gemma3])
def test_sequences_that_share_a_prefix_match_those_generated_alone(make, monkeypatch):
    model = make()
    alone = [Engine(model, tiny_tokenizer()).generate(request) for request in requests()]
    groups = seen(monkeypatch)
    together = Engine(model, tiny_tokenizer()).generate_batch(requests())
    assert {len(group.rows) for step in groups for group in step} >= {3, 4}
    for one, other in zip(alone, together, strict=True):
        assert one.token_ids == other.token_ids
        for a, b in zip(one.steps, other.steps, strict=True):
            assert abs(a.logprob - b.logprob) < 1e-4
            assert torch.allclose(a.attention, b.attention, atol=1e-5)


def test_only_sequences_with_the_same_adapters_share_a_prefix(monkeypatch):
    """The tokens are the same, but keys and values are not."""
    model = tiny_llama()
    adapters = [None, Shift(1.0), Shift(1.0), None, Shift(-2.0)]
    asked = [Request([*COMMON, 5, 6], 8, adapters=one) for one in adapters]

    def engine():
        made = Engine(model, tiny_tokenizer())
        made.attach(ShiftBackend(model))
        return made

    alone = [engine().generate(one).token_ids for one in asked]
    groups = seen(monkeypatch)
    together = [found.token_ids for found in engine().generate_batch(asked)]
    assert together == alone
    assert alone[0] != alone[1] != alone[4]
    assert {group.rows for step in groups for group in step} == {(0, 3), (1, 2)}


def test_attention_without_a_plain_softmax_is_left_to_the_kernel(monkeypatch):
    engine = Engine(tiny_llama(), tiny_tokenizer())
    assert engine.shares_steps
    engine._runner.call.switch.supported = False
    monkeypatch.setattr(row_attention, "attend_with_shared_prefix", lambda *_: pytest.fail("the kernel was not asked"))
    asked = [Request([*COMMON, 5, n], 4) for n in (6, 7)]
    assert all(len(found.token_ids) == 4 for found in engine.generate_batch(asked))
