"""Adapters as GGUF files: PEFT's updates, in the order of rows that the base model's file has."""

import gguf
import numpy as np
import pytest
from peft import PeftModel

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout, Target
from llamaindex_prag.store.gguf_file import GGUFModel, export_gguf
from llamaindex_prag.store.peft_folder import export_peft
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.embedded import embedded_gguf_file, embedded_model_folder
from tests.llamacpp.tiny_gguf import paired, write_gguf
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

EVERYWHERE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(params=[tiny_llama, tiny_qwen2])
def model(request):
    return request.param()


@pytest.fixture
def base(model, tmp_path):
    return write_gguf(model, tiny_tokenizer(), tmp_path / "base.gguf")


@pytest.fixture
def adapter(model):
    targets = tuple(
        Target(name, layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if name.endswith(EVERYWHERE)
    )
    layout = Layout(targets, 3)
    return Adapter(layout, random_values(layout, 5), 1.7)


def values_of(path):
    """Read a file: its fields, and its tensors by name."""
    reader = gguf.GGUFReader(path)
    return {n: f.contents() for n, f in reader.fields.items()}, {t.name: np.array(t.data) for t in reader.tensors}


def test_the_updates_in_the_file_are_those_of_peft_in_the_order_of_the_base_models_rows(model, base, adapter, tmp_path):
    fields, tensors = values_of(export_gguf(adapter, tmp_path / "adapter.gguf", base=base, base_model="f" * 64))
    config = model.config
    folder = export_peft(adapter, tmp_path / "peft", base_model_name="base")
    peft = PeftModel.from_pretrained(model, folder)
    names = gguf.get_tensor_name_map(
        {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[config.model_type], config.num_hidden_layers
    )
    assert len(tensors) == 2 * len(adapter.layout.targets) == 2 * 7 * config.num_hidden_layers
    for target in adapter.layout.targets:
        theirs = peft.base_model.model.get_submodule(target.name).get_delta_weight("default").detach().numpy()
        if config.model_type == "llama":
            for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
                theirs = paired(theirs, heads) if part in target.name else theirs
        name = f"{names.get_name(target.name)}.weight"
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        scale = fields["adapter.lora.alpha"] / len(a)  # as llama.cpp computes it
        np.testing.assert_allclose(scale * b @ a, theirs, rtol=1e-5, atol=1e-6)
    assert fields["general.architecture"] == config.model_type
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    assert "adapter.alora.invocation_tokens" not in fields


def test_the_rows_of_the_embedded_models_own_file_are_in_that_order():
    read, weights = GGUFModel.read(embedded_gguf_file()), load_file_as_float32(embedded_model_folder())
    assert (read.architecture, read.heads, read.kv_heads, read.quantisation) == ("llama", 9, 3, "Q4_1")
    tensors = {t.name: t for t in gguf.GGUFReader(embedded_gguf_file()).tensors}
    for ours, theirs in (("q_proj", "attn_q"), ("k_proj", "attn_k"), ("v_proj", "attn_v")):
        there = tensors[f"blk.7.{theirs}.weight"]
        here = weights[f"model.layers.7.self_attn.{ours}.weight"]
        heads = read.permuted_heads(f"blk.7.{theirs}")
        ordered = here if heads is None else paired(here, heads)
        np.testing.assert_allclose(gguf.dequantize(there.data, there.tensor_type), ordered, rtol=2**-8, atol=1e-6)


def load_file_as_float32(folder):
    from safetensors.torch import load_file as load

    return {name: value.float().numpy() for name, value in load(folder / "model.safetensors").items()}


def test_an_activated_adapter_names_its_tokens_as_unsigned_numbers(base, adapter, tmp_path):
    path = export_gguf(adapter, tmp_path / "adapter.gguf", base=base, invocation=[7, 9])
    field = gguf.GGUFReader(path).get_field("adapter.alora.invocation_tokens")
    assert field.contents() == [7, 9]
    assert field.types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32]


def test_an_adapter_of_another_model_is_refused_and_no_file_is_left(adapter, tmp_path):
    other = write_gguf(tiny_llama(num_hidden_layers=2), tiny_tokenizer(), tmp_path / "other.gguf")
    with pytest.raises(AdapterError, match=r"model\.layers\.2\..* but .*other.gguf has no such layer"):
        export_gguf(adapter, tmp_path / "adapter.gguf", base=other)
    assert not list(tmp_path.glob("*adapter*"))


def test_files_that_are_no_model_are_refused(base, adapter, tmp_path):
    path = export_gguf(adapter, tmp_path / "adapter.gguf", base=base)
    with pytest.raises(ConfigurationError, match="is of type 'adapter' and architecture"):
        GGUFModel.read(path)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ConfigurationError, match="text.gguf cannot be read as a GGUF file"):
        GGUFModel.read(tmp_path / "text.gguf")
    with pytest.raises(ConfigurationError, match="nowhere.gguf cannot be read"):
        GGUFModel.read(tmp_path / "nowhere.gguf")


def test_values_that_are_not_finite_are_refused(base, adapter, tmp_path):
    adapter.buffer[0] = np.nan
    with pytest.raises(AdapterError, match="not finite"):
        export_gguf(adapter, tmp_path / "adapter.gguf", base=base)
