"""A parametric model as a `PeftModel`: the same answers, on the same weights, which it never changes."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.errors import AdapterMissingError
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.serving.merging import merged
from llamaindex_prag.store import import_peft
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

TEXTS = ["text 0", "text 1", "text 2"]
IDS = torch.tensor([[5, 9, 13, 21, 34, 55], [3, 4, 5, 6, 7, 8]])


def opened(folder, base, size=0.1):
    lm = CausalLM(base, tiny_tokenizer(), name="tiny")
    store = LMDBStore(folder / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26)
    made = ParametricModel(lm, store, recipe="prag", max_adapters=3).attach()
    for i, text in enumerate(TEXTS):
        store.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, size), 2.0), {})
    return made


@pytest.fixture(params=[tiny_llama, tiny_qwen2])
def model(request, tmp_path):
    made = opened(tmp_path, request.param())
    yield made
    made.store.close()


@pytest.fixture
def llama(tmp_path):
    made = opened(tmp_path, tiny_llama())
    yield made
    made.store.close()


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def our_logits(model, texts, **options):
    selection = model.select([model.key(text) for text in texts], **options)

    def forward():
        with model.bank.activate([selection] * len(IDS)):
            return logits(model.lm.model)

    return model.lm.engine.run(forward)


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (TEXTS[:1], {}),
        (TEXTS, {}),
        (TEXTS, {"merge": "sum", "strength": 0.5}),
        (TEXTS, {"merge": "orthogonal"}),
        (TEXTS[:2], {"merge": "score", "scores": [3.0, 1.0]}),
    ],
    ids=str,
)
def test_logits_are_those_of_the_engine(model, texts, options):
    adapted = model.to_peft(texts, **options)
    assert isinstance(adapted, PeftModel)
    assert not adapted.training
    expected = our_logits(model, texts, **options)
    assert (expected - logits(model.lm.model)).abs().max() > 0.5  # the adapters do something
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS])
def test_greedy_texts_are_those_of_the_engine(model, texts):
    prompt = [5, 9, 13, 21]
    selection = model.select([model.key(text) for text in texts])
    expected = model.lm.engine.generate(Request(prompt, 12, adapters=selection)).token_ids
    ids = torch.tensor([prompt])
    written = model.to_peft(texts).generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
    )
    assert [t for t in written[0, len(prompt) :].tolist() if t != tiny_tokenizer().eos_token_id] == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_factors_stay_what_they_are(tmp_path, dtype):
    model = opened(tmp_path, tiny_llama().to(dtype))
    adapted = model.to_peft(TEXTS)
    whole = merged(model.store, model.select([model.key(text) for text in TEXTS]))
    layers = adapted.base_model.model
    for target, a, b in whole.layout.factors(whole.buffer):
        layer = layers.get_submodule(target.name)
        np.testing.assert_array_equal(layer.lora_A["default"].weight.numpy(), a)
        np.testing.assert_array_equal(layer.lora_B["default"].weight.numpy(), b)
    expected = our_logits(model, TEXTS).float()
    torch.testing.assert_close(logits(adapted).float(), expected, rtol=0.05, atol=0.2)
    model.store.close()


def test_weights_are_shared_and_nothing_of_the_base_model_is_changed(llama):
    base = llama.lm.model
    before, modules = {n: p.clone() for n, p in base.named_parameters()}, list(base.modules())
    expected, draws = logits(base), torch.random.get_rng_state()
    flags = {n: p.requires_grad for n, p in base.named_parameters()}
    adapted = llama.to_peft(TEXTS)
    assert torch.equal(torch.random.get_rng_state(), draws)
    places = {p.data_ptr() for p in adapted.parameters()}
    assert {p.data_ptr() for p in base.parameters()} <= places
    adapted.to(torch.float64)
    adapted.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert all(one is other for one, other in zip(base.modules(), modules, strict=True))
    assert {n: p.requires_grad for n, p in base.named_parameters()} == flags
    assert all(torch.equal(p, before[n]) and p.dtype == torch.float32 for n, p in base.named_parameters())
    assert torch.equal(logits(base), expected)


def test_tied_weights_stay_tied(tmp_path):
    model = opened(tmp_path, tiny_llama(tie_word_embeddings=True))
    inner = model.to_peft(TEXTS).get_base_model()
    assert inner.get_input_embeddings().weight is inner.get_output_embeddings().weight
    model.store.close()


@pytest.mark.parametrize(
    ("merge", "warns"),
    [
        (lambda m: m.merge_and_unload(), False),
        (lambda m: m.merge_and_unload(False, False), True),
        (lambda m: m.merge_and_unload(safe_merge=False), True),
        (lambda m: m.merge_adapter() or m, False),
        (lambda m: m.merge_adapter(safe_merge=False) or m, True),
        (lambda m: m.merge_adapter(["default"], False) or m, True),
    ],
)
def test_merging_leaves_the_shared_weights_as_they_were(llama, merge, warns, caplog):
    before = {n: p.clone() for n, p in llama.lm.model.named_parameters()}
    expected = our_logits(llama, TEXTS)
    done = merge(llama.to_peft(TEXTS))
    assert ("merging safely instead" in caplog.text) is warns
    torch.testing.assert_close(logits(done), expected, rtol=1e-4, atol=1e-3)
    assert all(torch.equal(p, before[n]) for n, p in llama.lm.model.named_parameters())
    torch.testing.assert_close(our_logits(llama, TEXTS), expected)


def test_an_adapter_can_be_unmerged_again(llama):
    adapted = llama.to_peft(TEXTS)
    before = {n: p.clone() for n, p in llama.lm.model.named_parameters()}
    expected = logits(adapted)
    adapted.merge_adapter()
    adapted.unmerge_adapter()
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-4, atol=1e-3)
    assert all(torch.equal(p, before[n]) for n, p in llama.lm.model.named_parameters())


def test_the_adapter_can_be_trained_further_without_the_base_model(llama):
    before = {n: p.clone() for n, p in llama.lm.model.named_parameters()}
    adapted = llama.to_peft(TEXTS[:1])
    adapted.set_adapter("default")
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(llama.layout.targets)
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(3):
        losses.append(adapted(input_ids=IDS, labels=IDS).loss)
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, before[n]) for n, p in llama.lm.model.named_parameters())
    assert all(p.grad is None for p in llama.lm.model.parameters())


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_what_it_saves_comes_back_as_an_adapter(llama, tmp_path):
    llama.to_peft(TEXTS).save_pretrained(tmp_path / "folder")
    expected = merged(llama.store, llama.select([llama.key(text) for text in TEXTS]))
    found = import_peft(tmp_path / "folder", llama.layout)
    np.testing.assert_array_equal(found.buffer, expected.buffer)
    assert (found.layout, found.scale) == (expected.layout, 1.0)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(tiny_llama(), tmp_path / "folder")),
        our_logits(llama, TEXTS),
        rtol=1e-5,
        atol=1e-4,
    )


def test_it_is_a_base_model_only_once_it_is_merged(llama):
    adapted = llama.to_peft(TEXTS)
    with pytest.raises(ConfigurationError, match=r"CausalLM\(model.merge_and_unload\(\), tokenizer\)"):
        CausalLM(adapted, tiny_tokenizer())
    merged_lm = CausalLM(adapted.merge_and_unload(), tiny_tokenizer())
    assert merged_lm.fingerprint != llama.lm.fingerprint
    prompt = [5, 9, 13, 21]
    selection = llama.select([llama.key(text) for text in TEXTS])
    expected = llama.lm.engine.generate(Request(prompt, 12, adapters=selection)).token_ids
    assert merged_lm.engine.generate(Request(prompt, 12)).token_ids == expected


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ([], AdapterError, "at least one"),
        (["never trained"], AdapterMissingError, "no adapter"),
        ([*TEXTS, "text 3"], AdapterError, "room for 3"),
        ("text 0", ConfigurationError, r"documents is 'text 0' \(str\); a list of passages"),
    ],
)
def test_documents_that_cannot_be_used_are_refused(llama, documents, error, message):
    with pytest.raises(error, match=message):
        llama.to_peft(documents)


def test_generation_goes_on_while_a_copy_is_made(llama):
    """The copy is made between two steps, so it never holds a layer whose forward is exchanged."""
    selection = llama.select([llama.key(TEXTS[0])])
    with llama.lm.engine.stream(Request([5, 9, 13, 21], 30, adapters=selection)) as steps:
        for _ in zip(range(3), steps, strict=False):
            adapted = llama.to_peft(TEXTS[:1])
    assert not any("forward" in vars(m) for m in adapted.modules() if isinstance(m, nn.Linear))
    assert not adapted.get_base_model().config._attn_implementation.startswith("dynprag_")
