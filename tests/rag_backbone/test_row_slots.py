"""Rows' own keys and values in one batch: every row gets the formula over its own sequence, whoever came before it."""

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_backbone import row_slots, slot_step
from rag_backbone.common_beginning import rows_alike
from rag_backbone.engine import Engine
from rag_backbone.kv_cache import SequenceCache
from rag_backbone.requests import Request
from rag_backbone.row_layout import RowLayout
from rag_backbone.row_slots import RowSlots
from rag_backbone.signals import Signals
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

LAYERS, HEADS, KV_HEADS, DIM = 2, 6, 2, 8
CONFIG = tiny_llama().config


@functools.cache
def token_states(layer, ids):
    """Of a token after others: those of a prefix are the same, whoever has it."""
    torch.manual_seed(hash((layer, *ids)) % 2**32)
    return torch.randn(KV_HEADS, DIM), torch.randn(KV_HEADS, DIM)


def states_of(ids, layer, dtype):
    """Keys and values of tokens."""
    found = [token_states(layer, tuple(ids[: at + 1])) for at in range(len(ids))]
    keys, values = zip(*found, strict=True)
    return torch.stack(keys, 1)[None].to(dtype), torch.stack(values, 1)[None].to(dtype)


class Sequence:
    """A row's cache, and what it stands for."""

    def __init__(self, ids, dtype=torch.float32):
        self.cache = SequenceCache.empty(CONFIG)
        self.cache.cache.layers = self.cache.cache.layers[:LAYERS]
        self.dtype = dtype
        self.grow(ids)

    def grow(self, ids):
        known = len(self.cache.ids)
        layers = self.cache.cache.layers
        self.cache.ids = self.cache.ids + ids
        for layer, (keys, values) in zip(layers, self.states(), strict=True):
            layer.update(keys[:, :, known:], values[:, :, known:])

    def states(self):
        return [states_of(self.cache.ids, n, self.dtype) for n in range(LAYERS)]

    def holds_all(self):
        """Also what came by slots alone."""
        for layer, (keys, values) in zip(self.cache.cache.layers, self.states(), strict=True):
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)


def step(slots, rows, token, *, fails=False, least=3):
    """One token more of each row; compared with the formula, in float64. Whether slots were used."""
    layout = RowLayout([row.cache for row in rows], [[token]] * len(rows))
    groups = rows_alike("k" * len(rows), [row.cache.ids for row in rows], least=least)
    made = slots.step(layout, groups)
    before = [list(row.cache.ids) for row in rows]
    for row in rows:
        if made is not None and slots.holds_alone:
            row.cache.ids = [*row.cache.ids, token]
        else:
            row.grow([token])
    if made is not None:
        for n in range(LAYERS):
            check(made, rows, n)
        if not fails:
            made.done()
    if fails:
        for row, ids in zip(rows, before, strict=True):
            row.cache.ids = ids
            row.cache.truncate(len(ids))
    return made is not None


def check(made, rows, n):
    dtype = rows[0].dtype
    query = torch.randn(len(rows), HEADS, 1, DIM).to(dtype)
    states = [row.states()[n] for row in rows]
    keys, values = (torch.cat([parts[i][:, :, -1:] for parts in states]) for i in (0, 1))
    output, weights = made.attend(n, query, keys, values, 0.3, record=True)
    assert output.shape == (len(rows), 1, HEADS, DIM)
    assert output.dtype == dtype
    for i, (row, of_row) in enumerate(zip(rows, states, strict=True)):
        assert weights[i].shape == (1, HEADS, 1, len(row.cache.ids))
        for head in range(HEADS):
            k, v = (part[0, head // (HEADS // KV_HEADS)].double() for part in of_row)
            exact = torch.softmax(k @ query[i, head, 0].double() * 0.3, 0)
            assert torch.allclose(weights[i][0, head, 0].double(), exact, atol=1e-5)
            assert torch.allclose(output[i, 0, head].double(), exact @ v, atol=1e-5 if dtype == torch.float32 else 3e-2)


STEPS = st.lists(
    st.tuples(st.sets(st.integers(0, 5), min_size=2), st.booleans(), st.sets(st.integers(0, 5))), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=30)
@given(
    STEPS, st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=7), min_size=6, max_size=6), st.booleans(),
    st.sampled_from([4, 256]), st.sampled_from([torch.float32, torch.bfloat16]),
)  # fmt: skip
def test_rows_that_come_go_pause_and_fail_get_their_own(steps, beginnings, alone, room, dtype):
    slots = RowSlots(holds_alone=alone)
    row_slots_room, row_slots._ROOM = row_slots._ROOM, room
    row_slots_least, row_slots.LEAST = row_slots.LEAST, 2
    try:
        rows = [Sequence([1, 1, 2, *ids], dtype) for ids in beginnings]
        for n, (together, fails, replaced) in enumerate(steps):
            step(slots, [rows[i] for i in together], 3 + n, fails=fails)
            for i in replaced:  # its row has ended, or has gone on alone
                if n % 2:
                    rows[i] = Sequence([1, 1, 2, *beginnings[i], 9], dtype)
                else:
                    rows[i].grow([7, 8])
            if n % 3 == 2:
                rows[n % 6].holds_all()
        for row in rows:
            row.holds_all()
    finally:
        row_slots._ROOM = row_slots_room
        row_slots.LEAST = row_slots_least


def test_elsewhere_slots_are_of_the_rows_type(monkeypatch):
    for module in (row_slots, slot_step):
        monkeypatch.setattr(module, "fused_on", lambda _: False)
    layout = RowLayout([Sequence([1, 2, 3, n], torch.bfloat16).cache for n in (4, 5, 6)], [[7]] * 3)
    made = RowSlots().step(layout, [])
    query = torch.randn(3, HEADS, 1, DIM).bfloat16()
    keys, values = (torch.randn(3, KV_HEADS, 1, DIM).bfloat16() for _ in range(2))
    output, weights = made.attend(1, query, keys, values, 0.3, record=True)
    assert output.dtype == torch.bfloat16
    for i, sequence in enumerate(layout.sequences):
        layer = sequence.layers[1]
        for head in range(HEADS):
            of = head // (HEADS // KV_HEADS)
            k, v = (
                torch.cat((known[0, of], new[i, of])).double()
                for known, new in ((layer.keys, keys), (layer.values, values))
            )
            exact = torch.softmax(k @ query[i, head, 0].double() * 0.3, 0)
            assert torch.allclose(weights[i][0, head, 0].double(), exact, atol=1e-2)
            assert torch.allclose(output[i, 0, head].double(), exact @ v, atol=3e-2)


def test_what_a_slot_held_of_another_row_is_erased():
    """Not even what is no number gets from one row's keys to another's answer."""
    slots = RowSlots()
    ill, other = Sequence([1, 2, 3, 4, 5, 6]), Sequence([2, 2, 3, 4, 5, 6])
    for layer in ill.cache.layers:
        layer.key_buffer.fill_(math.nan)
        layer.value_buffer.fill_(math.inf)
    slots.step(RowLayout([ill.cache, other.cache], [[1], [1]]), []).done()
    del ill
    rows = [Sequence([5, 6]), Sequence([6, 5])]
    for _ in range(row_slots._IDLE + 1):  # until the slots are given to others
        assert step(slots, rows, 7)
    fresh = [Sequence([3, 3]), Sequence([4, 4])]
    assert step(slots, fresh, 7)
    assert all(part.isfinite().all() for layer in slots._buffers for part in layer)


def test_where_keys_and_values_differ_in_width_there_is_no_batch():
    rows = [Sequence([n, 2]) for n in range(3)]
    for row in rows:
        row.cache.layers[1].values = row.cache.layers[1].values[..., :5]
    assert RowSlots().step(RowLayout([row.cache for row in rows], [[7]] * 3), []) is None


def test_where_a_batch_does_not_pay_there_is_none():
    short = [Sequence([n]) for n in range(1, 5)]
    assert step(RowSlots(), short, 9)
    assert step(RowSlots(), [*short, Sequence([1] * 18)], 9)
    assert not step(RowSlots(), [*short, Sequence([1] * 100)], 9)  # four would be padded to a hundred tokens
    assert not step(RowSlots(most_bytes=1000), short, 9)


def test_room_grows_with_the_rows(monkeypatch):
    monkeypatch.setattr(row_slots, "_ROOM", 4)
    slots, rows = RowSlots(), [Sequence([1, n]) for n in range(3)]
    assert all(step(slots, rows, token) for token in range(1, 8))
    assert all(step(slots, [*rows, Sequence([1, 9, 9, 9, 9])], token) for token in range(1, 4))


def test_rows_that_come_to_be_a_group_have_something_in_common_to_attend_to():
    slots, rows = RowSlots(), [Sequence([1, 2, 3, n]) for n in (4, 5, 6)]
    assert step(slots, rows, 7, least=100)  # each has all of its tokens in its slot
    assert step(slots, rows, 8)


@pytest.mark.parametrize("alone", [True, False])
def test_rows_that_go_on_alike_have_the_latest_tokens_in_common(alone):
    slots = RowSlots(holds_alone=alone)
    one, other, third, fourth = (Sequence([1, 2, 3, *last]) for last in ([4], [5], [5], [4]))
    for token in (7, 8, 9):
        assert step(slots, [one, other, third], token)
    for token in (7, 8):  # in another order, and with one that is behind them
        assert step(slots, [third, other, fourth, one], token)
        assert step(slots, [other, one, third], token)
    for row in (one, other, third, fourth):
        row.holds_all()


def test_the_batch_lasts_however_rows_come_and_go():
    """Slots are given on, and rows move to the front when few are left: never does the batch grow past its use."""
    slots, kept = RowSlots(), []
    rows = [Sequence([1, 2, n]) for n in range(3, 7)]
    for n in range(40):
        assert step(slots, rows, 9)
        kept.append(rows[n % 4])  # others may hold on to what has ended
        rows[n % 4] = Sequence([1, 2, n % 5, 8])
    assert len(slots._slots) <= 5
    several = [Sequence([n, 2]) for n in range(8)]
    assert all(step(slots, several, token) for token in (3, 4))
    last = sorted(several, key=lambda row: next(i for i, slot in enumerate(slots._slots) if slot.holds(row.cache)))[-2:]
    assert all(step(slots, last, token) for token in (5, 6, 7))
    assert step(slots, several, 8)
    assert sum(slot.holds(row.cache) for slot in slots._slots for row in several) == 8


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
def test_generations_use_them_and_are_what_each_is_alone(make, monkeypatch):
    model, made = make(), []
    common = [3 + 7 * n % 300 for n in range(70)]
    prompts = [[*common[: 70 if i % 3 else 0], 5 + i, *range(20, 26 + 2 * i)] for i in range(6)]
    requests = [Request(prompt, 6 + 2 * i, signals=Signals(attention=True)) for i, prompt in enumerate(prompts)]
    alone = [Engine(model, tiny_tokenizer()).generate(request) for request in requests]
    original = RowSlots.step

    def watched(self, *given):
        made.append(original(self, *given) is not None)
        return original(self, *given)

    monkeypatch.setattr(RowSlots, "step", watched)
    together = Engine(model, tiny_tokenizer()).generate_batch(requests)
    assert any(made)
    for one, other in zip(alone, together, strict=True):
        assert one.token_ids == other.token_ids
        for a, b in zip(one.steps, other.steps, strict=True):
            assert abs(a.logprob - b.logprob) < 1e-4
            assert torch.allclose(a.attention, b.attention, atol=1e-4)
