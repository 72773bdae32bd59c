"""Loading models: what is refused with which message, and what the fingerprint depends on."""

import json
import shutil

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError, ModelLoadError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))


def test_a_folder_is_loaded_and_generates(folder):
    lm = CausalLM.from_pretrained(folder, device="cpu")
    assert lm.model.dtype == torch.float32
    assert lm.engine.generate(Request("The river", 5)).token_ids
    assert "0M parameters, float32 on cpu" in repr(lm)
    assert lm.has_chat_template
    assert lm.context_window == 2048


def test_one_model_has_one_engine(folder):
    lm = CausalLM.from_pretrained(folder)
    assert lm.engine is lm.engine


def test_the_error_names_a_missing_folder(tmp_path):
    with pytest.raises(ModelLoadError, match="nothing-here"):
        CausalLM.from_pretrained(tmp_path / "nothing-here")


def test_a_folder_without_a_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        CausalLM.from_pretrained(folder)


@pytest.mark.parametrize("keep", [3, 100, -1])
def test_truncated_weights_are_refused_before_loading(folder, keep):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelLoadError, match="truncated or damaged"):
        CausalLM.from_pretrained(folder)


def test_pickled_weights_are_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="pickled.*save_pretrained"):
        CausalLM.from_pretrained(folder)


def test_the_error_names_a_missing_shard(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="model-00002-of-00002"):
        CausalLM.from_pretrained(folder)


def test_models_of_the_wrong_kind_are_refused(tmp_path):
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 400,
    }
    BertLMHeadModel(BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelLoadError, match="not a decoder-only"):
        CausalLM.from_pretrained(tmp_path / "bert")
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    with pytest.raises(ModelLoadError, match="not a decoder-only"):
        CausalLM(t5, tiny_tokenizer())


def test_the_error_for_an_unknown_dtype_lists_the_known_ones(folder):
    with pytest.raises(ConfigurationError, match="bfloat16"):
        CausalLM.from_pretrained(folder, dtype="int3")


def test_the_fingerprint_is_the_same_in_every_dtype_and_in_memory(folder):
    in_float = CausalLM.from_pretrained(folder, dtype="float32").fingerprint
    assert CausalLM.from_pretrained(folder, dtype="bfloat16").fingerprint == in_float
    assert CausalLM(tiny_llama(), tiny_tokenizer()).fingerprint == in_float
    assert len(in_float) == 64


def test_a_cached_fingerprint_is_invalidated_by_a_change(folder):
    first = CausalLM.from_pretrained(folder).fingerprint
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(folder)
    assert CausalLM.from_pretrained(folder).fingerprint != first


def test_a_moved_folder_keeps_its_fingerprint(folder, tmp_path):
    first = CausalLM.from_pretrained(folder).fingerprint
    shutil.move(folder, tmp_path / "moved")
    assert CausalLM.from_pretrained(tmp_path / "moved").fingerprint == first


def test_the_error_for_an_unloadable_model_has_no_double_full_stop():
    for name in ("not/a/model/at/all", "nowhere/at-all"):
        with pytest.raises(ModelLoadError) as refused:
            CausalLM.from_pretrained(name)
        assert ".. " not in str(refused.value)
        assert "\n" not in str(refused.value)
