"""Continuations that share a prompt in one batch, compared with the plain formula and with each alone."""

import pytest
import torch

from rag_backbone.engine.batching.shared_prompt import SharedPromptCache, SharedPromptLayer
from rag_backbone.engine.kv_cache import GrowingLayer, SequenceCache
from rag_backbone.engine.model_runner import ModelRunner
from tests.rag_backbone.engine.references import BASE
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_gemma3])
def test_rows_get_the_logits_of_their_own_text_also_after_others_have_left(make):
    model, prompt = make(), [5, 6, 7, 8, 9]
    call, sequence = ModelRunner(model), SequenceCache.empty(model.config)
    with torch.inference_mode():
        call([prompt], sequence.cache, adapters=[BASE])
        sequence.ids = prompt
        cache = SharedPromptCache(sequence, 3, 6)
        texts = [[11, 12, 13], [21, 22, 23], [31, 32, 33]]
        for t in range(3):
            assert cache.positions.tolist() == [[5 + t]] * 3
            call([[text[t]] for text in texts], cache, adapters=[BASE] * 3)
            cache.keep([0, 1, 2], [t + 1] * 3)
        cache.keep([2, 0], [1, 3])  # the second row leaves, and the third is truncated to one token
        assert cache.positions.tolist() == [[6], [8]]
        found = call([[41], [42]], cache, adapters=[BASE] * 2).logits[:, -1]
        for row, text in zip(found, ([31, 41], [11, 12, 13, 42]), strict=True):
            assert (row - model(torch.tensor([prompt + text])).logits[0, -1]).abs().max() < 1e-3
    assert sequence.layers[0].length == 5  # the prompt does not grow


@pytest.mark.parametrize("known", [0, 4])
@pytest.mark.parametrize("window", [None, 3])
def test_a_row_attends_to_the_prompt_and_its_own_suffix_within_the_window(known, window):
    torch.manual_seed(0)
    heads, kv_heads, dim, lengths = 4, 2, 8, torch.tensor([0, 2])
    prompt = GrowingLayer()
    prompt.update(torch.randn(1, kv_heads, known, dim), torch.randn(1, kv_heads, known, dim))
    own = [torch.randn(2, kv_heads, 3, dim) for _ in "kv"]
    layer = SharedPromptLayer(prompt, torch.tensor([0, 0]), room=3)
    for t in range(3):  # rows that are ahead keep writing; a row's length decides what counts
        layer.keep(torch.tensor([0, 1]), torch.minimum(torch.tensor([t, t]), lengths))
        at = torch.minimum(torch.tensor(t), lengths)
        layer.update(*(states[[0, 1], :, at][:, :, None] for states in own))
    query = torch.randn(2, heads, 1, dim)
    found = layer.attend(query, 0.3, window)
    assert found.shape == (2, 1, heads, dim)
    for row, length in enumerate(lengths.tolist()):
        keys, values = (
            torch.cat([shared[0], mine[row, :, : length + 1]], 1)
            for shared, mine in zip((prompt.keys, prompt.values), own, strict=True)
        )
        if window is not None:
            keys, values = keys[:, -window:], values[:, -window:]
        for head in range(heads):
            weights = torch.softmax(keys[head // 2] @ query[row, head, 0] * 0.3, 0)
            assert torch.allclose(found[row, 0, head], weights @ values[head // 2], atol=1e-5)
