"""New tokens of several sequences in one forward pass, compared with each sequence alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_backbone.engine.batching.packed_layout import PackedLayout
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.model_runner import ModelRunner
from tests.rag_backbone.engine.references import BASE
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2

MODELS = {
    "llama": tiny_llama(),
    "llama, eager": tiny_llama(),
    "qwen2": tiny_qwen2(),
    "qwen2, windows": tiny_qwen2(use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "gemma3, windows, eager": tiny_gemma3(sliding_window=4),
}
for name, model in MODELS.items():
    if "eager" in name:
        model.set_attn_implementation("eager")

IDS = st.integers(3, 399)
ROW = st.tuples(st.lists(IDS, max_size=14), st.lists(IDS, min_size=1, max_size=12))


def sequence_of(model, known: list[int]) -> SequenceCache:
    sequence = SequenceCache.empty(model.config)
    if known:
        ModelRunner(model)([known], sequence.cache, adapters=[BASE])
        sequence.ids = list(known)
    return sequence


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=25)
@given(rows=st.lists(ROW, min_size=2, max_size=5), attention=st.booleans())
def test_sequences_of_any_length_after_any_cached_prefix_match_those_alone(name, rows, attention):
    model, queries = MODELS[name], int(attention)
    call = ModelRunner(model)
    with torch.inference_mode():
        sequences = [sequence_of(model, known) for known, _ in rows]
        alone = [sequence.copy(len(sequence.ids)) for sequence in sequences]
        layout = PackedLayout(sequences, [new for _, new in rows])
        together = call(layout, adapters=[BASE] * len(rows), queries=queries)
        assert together.logits.shape == (len(rows), 1, model.config.vocab_size)
        assert len(together.attention) == queries * len(rows)
        for i, (known, new) in enumerate(rows):
            expected = call([new], alone[i].cache, adapters=[BASE], queries=queries)
            assert torch.allclose(together.logits[i, -1], expected.logits[0, -1], atol=1e-3, rtol=1e-4)
            if attention:
                assert together.attention[i].shape == (4, 1, len(known) + len(new))
                assert torch.allclose(together.attention[i], expected.attention[0], atol=1e-4)
            for mine, theirs in zip(sequences[i].cache.layers, alone[i].cache.layers, strict=True):
                assert mine.length == len(known) + len(new)  # only its own tokens
                assert torch.allclose(mine.keys, theirs.keys, atol=1e-4)
                assert torch.allclose(mine.values, theirs.values, atol=1e-4)


def test_the_layout_is_packed_unless_every_sequence_has_one_token():
    sequences = [SequenceCache.empty(tiny_llama().config) for _ in range(3)]
    device = torch.device("cpu")
    batch = PackedLayout(sequences, [[5], [6], [7]]).arguments(device, logits_kept=True)
    assert batch["input_ids"].shape == batch["position_ids"].shape == (3, 1)
    sequences[1].ids = [1, 2, 3]
    packed = PackedLayout(sequences, [[5], [6, 7], [8, 9, 10]]).arguments(device, logits_kept=True)
    assert packed["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10]]
    assert packed["position_ids"].tolist() == [[0, 3, 4, 0, 1, 2]]
    assert packed["logits_to_keep"].tolist() == [0, 2, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_cannot_skip_logits_returns_the_last_ones_of_each_sequence_too(dtype):
    model = tiny_llama().to(dtype)
    rows = [[5, 6, 7], [8], [9, 10]]
    with torch.inference_mode():
        call, limited = ModelRunner(model), ModelRunner(model)
        limited._keeps_logits = False
        found = [
            c(PackedLayout([sequence_of(model, []) for _ in rows], rows), adapters=[BASE] * 3).logits
            for c in (call, limited)
        ]
        alone = [call([row], None, adapters=[BASE]).logits[0] for row in rows]
    assert torch.allclose(found[0], found[1], atol=1e-5 if dtype == torch.float32 else 0.1)
    assert torch.allclose(found[0], torch.stack(alone), atol=1e-3 if dtype == torch.float32 else 0.3)
