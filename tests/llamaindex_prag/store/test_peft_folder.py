"""Folders that PEFT reads and writes, checked against PEFT itself."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.errors import PeftFolderError
from llamaindex_prag.store import export_peft, import_peft
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.store.made import LAYOUT, made_adapter, made_key, opened
from tests.tiny import tiny_llama

IDS = torch.tensor([[1, 5, 9, 200, 33, 7]])


@pytest.fixture
def folder(tmp_path):
    return export_peft(made_adapter(), tmp_path / "adapter", base_model_name="tiny")


def reconfigured(folder, **changes):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))


def logits_with(adapter):
    """Return the tiny Llama's logits, with scale * B A added to its weights directly."""
    model = tiny_llama()
    for target, a, b in adapter.layout.factors(adapter.buffer):
        model.get_submodule(target.name).weight.data += adapter.scale * torch.from_numpy(b @ a)
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("layers", [None, (1,), (0, 2)])
@pytest.mark.parametrize(("rank", "scale"), [(2, 16.0), (3, 0.3)])
def test_peft_loads_our_export_as_the_same_update(tmp_path, layers, rank, scale):
    layout = layout_of(tiny_llama(), rank=rank, layers=layers)
    adapter = Adapter(layout, made_adapter(3, layout).buffer * 10, scale)
    export_peft(adapter, tmp_path / "adapter", base_model_name="tiny")
    model = PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "adapter"))
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == len(layout.targets)
    with torch.no_grad():
        found = model(IDS).logits
    torch.testing.assert_close(found, logits_with(adapter), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, tiny_llama()(IDS).logits, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_peft_adapters_are_read_with_the_same_effect(tmp_path, dtype):
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["down_proj", "up_proj", "gate_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype).float()
    with torch.no_grad():
        expected = model(IDS).logits
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    model.save_pretrained(str(tmp_path / "adapter"))
    adapter = import_peft(tmp_path / "adapter", layout_of(tiny_llama(), rank=1))
    assert (adapter.layout.rank, adapter.scale) == (4, 1.5)
    torch.testing.assert_close(logits_with(adapter), expected, rtol=1e-4, atol=1e-4)


def test_an_export_that_peft_loads_and_saves_is_read_back_unchanged(tmp_path):
    adapter = made_adapter(layout=layout_of(tiny_llama(), rank=2))
    export_peft(adapter, tmp_path / "ours", base_model_name="tiny")
    PeftModel.from_pretrained(tiny_llama(), str(tmp_path / "ours")).save_pretrained(str(tmp_path / "theirs"))
    found = import_peft(tmp_path / "theirs", adapter.layout)
    np.testing.assert_array_equal(found.buffer, adapter.buffer)
    assert found.scale == adapter.scale


def test_our_own_export_round_trips_exactly(folder):
    found = import_peft(folder, LAYOUT)
    np.testing.assert_array_equal(found.buffer, made_adapter().buffer)
    assert (found.layout, found.scale) == (LAYOUT, 16.0)
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["adapter"]


def test_our_config_has_only_fields_that_peft_knows(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    assert set(config) <= set(LoraConfig().to_dict())
    assert peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path == "tiny"


def test_a_removed_adapter_cannot_be_exported(tmp_path):
    with opened(tmp_path / "store") as store:
        store.put(made_key(), made_adapter(), {})
        export_peft(store.get(made_key()), tmp_path / "adapter", base_model_name="tiny")
        store.remove(made_key())
        assert store.get(made_key()) is None


def test_an_export_replaces_an_adapter_and_nothing_else(folder, tmp_path):
    export_peft(made_adapter(1), folder, base_model_name="tiny")
    np.testing.assert_array_equal(import_peft(folder, LAYOUT).buffer, made_adapter(1).buffer)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a letter.txt").write_text("hello")
    for other in (tmp_path / "letters", tmp_path / "letters/a letter.txt"):
        with pytest.raises(PeftFolderError, match="name a new folder"):
            export_peft(made_adapter(), other, base_model_name="tiny")
    with pytest.raises(PeftFolderError, match="cannot be written"):
        export_peft(made_adapter(), tmp_path / "letters/a letter.txt/below", base_model_name="tiny")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "letters"]


def test_an_adapter_that_is_not_finite_is_not_exported(tmp_path):
    adapter = made_adapter()
    adapter.buffer[0] = np.inf
    with pytest.raises(AdapterError, match="not finite"):
        export_peft(adapter, tmp_path / "adapter", base_model_name="tiny")
    assert list(tmp_path.iterdir()) == []


def test_pickled_weights_are_refused_unread(folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(
        PeftFolderError, match=r"adapter_model.bin, a pickle, which can run arbitrary code.*safe_serialization"
    ):
        import_peft(folder, LAYOUT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_rslora": True}, "use_rslora = True"),
        ({"use_dora": True}, "use_dora = True"),
        ({"use_new_trick": {"a": 1}}, "use_new_trick.*more than plain LoRA"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"lora_bias": True}, "its B has a bias"),
        ({"rank_pattern": {"up_proj": 4}}, "ranks differ"),
        ({"alpha_pattern": {"up_proj": 4}}, "scales differ"),
        ({"modules_to_save": ["lm_head"]}, "whole layers"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
        ({"fan_in_fan_out": True}, "transposed"),
        ({"init_lora_weights": "pissa"}, "changes the base weights"),
        ({"loftq_config": {"bits": 4}}, "more than plain LoRA"),
        ({"peft_type": "IA3"}, "type 'IA3'; it must be 'LORA'"),
        ({"r": 0}, "r = 0"),
        ({"r": "2"}, "r = '2'"),
        ({"lora_alpha": float("inf")}, "lora_alpha = inf"),
        ({"lora_alpha": -1}, "lora_alpha = -1"),
        ({"r": 3}, r"shape \(2, 12\); \(3, 12\) is needed"),
    ],
)
def test_anything_but_plain_lora_is_refused_with_the_reason(folder, changes, reason):
    reconfigured(folder, **changes)
    with pytest.raises(PeftFolderError, match=reason):
        import_peft(folder, LAYOUT)


def test_other_layers_are_refused_by_name(folder):
    with pytest.raises(PeftFolderError, match="also changes base_model.model.model.layers.0.mlp.down_proj"):
        import_peft(folder, Layout(LAYOUT.targets[:1], 2))
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(f"base_model.model.{LAYOUT.targets[0].name}.lora_B.weight")
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(PeftFolderError, match="has no base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"):
        import_peft(folder, LAYOUT)


def test_other_types_and_values_are_refused(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name].astype(np.int32)}, folder / "adapter_model.safetensors")
    with pytest.raises(PeftFolderError, match="type I32"):
        import_peft(folder, LAYOUT)
    save_file({**weights, name: weights[name] * np.float32(np.nan)}, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="not finite"):
        import_peft(folder, LAYOUT)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_or_missing_files_are_named(folder, name):
    kept = (folder / name).read_bytes()
    for broken in (kept[: len(kept) // 2], b"", b"[1]", b"\xff" * 200):
        (folder / name).write_bytes(broken)
        with pytest.raises(PeftFolderError, match=name):
            import_peft(folder, LAYOUT)
    (folder / name).unlink()
    with pytest.raises(PeftFolderError, match=f"has no {name}"):
        import_peft(folder, LAYOUT)


def test_links_out_of_the_folder_are_not_followed(folder, tmp_path):
    outside = shutil.move(folder / "adapter_model.safetensors", tmp_path / "elsewhere.safetensors")
    (folder / "adapter_model.safetensors").symlink_to(outside)
    with pytest.raises(PeftFolderError, match="outside the folder; it is not followed"):
        import_peft(folder, LAYOUT)


def test_links_in_the_hubs_cache_are_followed(folder, tmp_path):
    (tmp_path / "hub/blobs").mkdir(parents=True)
    snapshot = tmp_path / "hub/snapshots/0123abc"
    snapshot.mkdir(parents=True)
    for path in list(folder.iterdir()):
        path.rename(tmp_path / "hub/blobs" / f"blob of {path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob of {path.name}")
    np.testing.assert_array_equal(import_peft(snapshot, LAYOUT).buffer, made_adapter().buffer)
