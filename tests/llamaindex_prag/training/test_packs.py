"""Compares sequences that share a prefix in one row with a separate row for each."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.objective import CountedLogits, batch_of
from llamaindex_prag.training.packs import Pack, packs_of, rows_of
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2

tokens = st.lists(st.integers(3, 9), min_size=1, max_size=8)


@st.composite
def examples(draw):
    """Draw sequences, some of which share a prefix."""
    beginnings = draw(st.lists(tokens, min_size=1, max_size=2))
    found = []
    for _ in range(draw(st.integers(1, 6))):
        ids = (*draw(st.sampled_from(beginnings)), *draw(tokens))
        found.append(Example(ids, draw(st.integers(1, len(ids) - 1))))
    return found


@pytest.fixture(scope="module")
def counted():
    return CountedLogits(tiny_llama())


@settings(max_examples=60, deadline=None)
@given(examples(), st.integers(1, 60))
def test_packed_sequences_have_the_logits_of_separate_ones(counted, sequences, limit):
    assert counted.shares_prefixes
    packs = packs_of(sequences, limit)
    batch = batch_of(packs, torch.device("cpu"))
    with torch.no_grad():
        found = counted(batch).split([e.counted for e in batch.examples])
        for example, logits in zip(batch.examples, found, strict=True):
            alone = counted(batch_of([Pack((example,), 0)], torch.device("cpu")))
            assert torch.allclose(logits, alone, atol=1e-4)


@given(examples(), st.integers(1, 60))
def test_every_sequence_is_in_one_pack_and_no_pack_exceeds_the_limit(sequences, limit):
    packs = packs_of(sequences, limit)
    assert sorted(e.ids for p in packs for e in p.examples) == sorted(e.ids for e in sequences)
    for pack in packs:
        assert pack.width <= limit or len(pack.examples) == 1
        assert pack.width <= sum(len(e.ids) for e in pack.examples)
        assert all(e.ids[: pack.prefix] == pack.examples[0].ids[: pack.prefix] for e in pack.examples)
        assert all(pack.prefix < e.counted_from for e in pack.examples)


@given(examples())
def test_joining_the_parts_of_packed_values_restores_them(sequences):
    rows = rows_of(packs_of(sequences, 100), 0, torch.device("cpu"))
    values = rows.ids[..., None].float()
    parts = rows.part(values)
    assert [tuple(int(v) for v in part[:, 0]) for part in parts] == [e.ids for p in rows.packs for e in p.examples]
    assert torch.equal(rows.joined(parts), values)


def test_two_questions_about_one_passage_read_it_once():
    passage = tuple(range(3, 103))
    (pack,) = packs_of([Example((*passage, 7, 8, 9), 102), Example((*passage, 8, 8), 101)], 1000)
    assert pack.width == 105


@pytest.mark.parametrize("make", [tiny_qwen2, tiny_gemma3])
def test_other_model_families_share_prefixes_and_a_sliding_window_limits_the_row(make):
    model = make()
    counted = CountedLogits(model)
    assert counted.shares_prefixes
    window = getattr(model.config, "sliding_window", None)
    assert counted.widest == (window or model.config.max_position_embeddings)
