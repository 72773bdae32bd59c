"""The bank against dense weight updates and against PEFT, and isolation between adapters."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from llamaindex_prag.adapters.bank import AdapterBank
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.made import key_of, keys, with_update
from tests.tiny import tiny_tokenizer

IDS = torch.tensor([[5, 9, 13, 21, 34, 55]])


def logits(model, ids=IDS):
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize(
    ("merge", "texts", "weights"),
    [
        ("sum", "abc", [1, 1, 1]),
        ("mean", "abc", [1 / 3, 1 / 3, 1 / 3]),
        ("mean", "b", [1]),
        ("score", "ab", [0.75, 0.25]),
    ],
)
def test_a_selection_equals_the_weighted_sum_of_dense_updates(model, layout, source, bank, merge, texts, weights):
    scores = [3.0, 1.0] if merge == "score" else None
    selection = bank.select(keys(*texts), merge=merge, scores=scores)
    updates = [(source.values[key_of(t)], w * source.scale) for t, w in zip(texts, weights, strict=True)]
    expected = logits(with_update(model, layout, updates))
    with bank.activate([selection]):
        found = logits(model)
    assert (expected - logits(model)).abs().max() > 0.1  # the adapters have an effect
    assert torch.allclose(found, expected, atol=2e-4, rtol=1e-4)


def test_a_sum_equals_pefts_concatenated_adapters(model, layout, source, bank):
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["gate_proj", "up_proj", "down_proj"], inference_mode=True)
    wrapped = get_peft_model(copy.deepcopy(model), config, adapter_name="first")
    wrapped.add_adapter("second", config)
    for text, name in (("a", "first"), ("b", "second")):
        for target, a, b in layout.factors(source.values[key_of(text)]):
            layer = wrapped.base_model.model.get_submodule(target.name)
            layer.lora_A[name].weight.data = torch.from_numpy(a.copy())
            layer.lora_B[name].weight.data = torch.from_numpy(b.copy())
    wrapped.add_weighted_adapter(["first", "second"], [1.0, 1.0], "both", combination_type="cat")
    wrapped.set_adapter("both")
    with bank.activate([bank.select(keys("a", "b"), merge="sum")]):
        found = logits(model)
    assert torch.allclose(found, logits(wrapped), atol=1e-4)


def test_each_sequence_of_a_batch_has_its_own_adapters(model, bank):
    ids = torch.tensor([[5, 9, 13], [6, 2, 8], [7, 7, 1], [5, 9, 13], [3, 4, 5]])
    first, second = bank.select(keys("a")), bank.select(keys("b", "c"))
    rows = [first, None, second, second, first]
    with bank.activate(rows):
        together = logits(model, ids)
    for i, row in enumerate(rows):
        with bank.activate([row]):
            alone = logits(model, ids[i : i + 1])
        assert torch.allclose(together[i], alone[0], atol=1e-4)


def test_each_part_of_a_packed_sequence_has_its_own_adapters(model, bank):
    """A linear layer processes tokens independently, so a part must give the same result as alone."""
    layer = model.get_decoder().layers[1].mlp
    first, second = bank.select(keys("a")), bank.select(keys("b", "c"))
    rows, lengths = [first, None, second, second, first], [3, 2, 1, 4, 2]
    states = torch.randn(1, sum(lengths), 32)
    with torch.inference_mode(), bank.activate_packed(rows, lengths):
        together = layer(states).split(lengths, dim=1)
    for row, part, found in zip(rows, states.split(lengths, dim=1), together, strict=True):
        with torch.inference_mode(), bank.activate([row]):
            assert torch.allclose(found, layer(part), atol=1e-5)
    assert not any("forward" in vars(m) for m in model.modules())


def test_prompts_with_different_adapters_are_prefilled_together(model, bank):
    engine = Engine(model, tiny_tokenizer())
    engine.attach(bank)
    selections = [None, bank.select(keys("a")), bank.select(keys("b", "c")), None, bank.select(keys("a"))]
    requests = [
        Request([3 + (7 * i + n * (i + 2)) % 300 for n in range(40 + i)], max_new_tokens=8, adapters=s)
        for i, s in enumerate(selections)
    ]
    alone = []
    for request in requests:
        engine.prefixes.clear()
        alone.append(engine.generate(request))
    engine.prefixes.clear()
    assert engine.shares_steps
    before = engine.counts
    together = engine.generate_batch(requests)
    assert [g.token_ids for g in together] == [g.token_ids for g in alone]
    assert (engine.counts - before).forwards == max(g.counts.forwards for g in alone)


def test_the_model_is_restored_afterwards_and_its_weights_never_change(model, bank):
    before = {name: p.clone() for name, p in model.named_parameters()}
    expected = logits(model)
    with pytest.raises(RuntimeError, match="stop"), bank.activate([bank.select(keys("a"))]):
        logits(model)
        raise RuntimeError("stop")
    assert torch.equal(logits(model), expected)
    assert not any("forward" in vars(m) for m in model.modules())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert dict(model.named_parameters()).keys() == before.keys()


def test_a_prompt_is_never_answered_from_the_prefix_cache_of_other_adapters(model, bank):
    engine = Engine(model, tiny_tokenizer())
    engine.attach(bank)
    selections = [None, bank.select(keys("a")), bank.select(keys("b")), bank.select(keys("a"), strength=0.5)]
    prompt = list(range(3, 40))

    def answer(engine, selection):
        return engine.generate(Request(prompt, max_new_tokens=8, adapters=selection)).token_ids

    fresh = []
    for selection in selections:
        engine.prefixes.clear()
        fresh.append(answer(engine, selection))
    assert len({tuple(f) for f in fresh}) > 2
    for _ in range(2):
        assert [answer(engine, s) for s in selections] == fresh


def test_more_selections_than_slots_reuse_the_slots(model, layout, source, bank):
    expected = {}
    for text in "abcd":
        for weight in (1.0, 2.0):
            changed = with_update(model, layout, [(source.values[key_of(text)], weight * source.scale)])
            expected[text, weight] = logits(changed)
    for _ in range(2):
        for (text, weight), want in expected.items():
            with bank.activate([bank.select(keys(text), strength=weight)]):
                assert torch.allclose(logits(model), want, atol=2e-4, rtol=1e-4)
    assert len(bank._slots) == 4


def test_a_slot_is_filled_once_and_again_after_the_store_changed(bank, source, model):
    selection = bank.select(keys("a"))
    for _ in range(3):
        with bank.activate([selection]):
            pass
    assert source.reads == 1
    del source.values[key_of("a")]
    source.generation += 1
    with pytest.raises(AdapterError, match="no adapter"), bank.activate([selection]):
        pass
    assert not any("forward" in vars(m) for m in model.modules())


def test_a_call_that_needs_more_memory_than_there_is_says_which_limits_to_lower(model, layout, source):
    bank = AdapterBank(model, layout, source, max_adapters=10**12, slots=2)
    with pytest.raises(AdapterError, match=r"no memory .* 1000000000000 adapters, [\d,.]+ GiB on cpu.*max_adapters"):
        bank.activate([bank.select(keys("a"))]).__enter__()


def test_adapters_of_a_model_that_was_moved_are_refused(model, bank):
    selection = bank.select(keys("a"))
    model.to("meta")
    with (
        pytest.raises(ConfigurationError, match="moved from cpu to meta after it was loaded"),
        bank.activate([selection]),
    ):
        pass
