"""Copies of a GGUF file hold the same weights, as exactly as their precision allows."""

import numpy as np
import pytest
import torch

from benchmarks.gguf_precision import copied

gguf = pytest.importorskip("gguf")


@pytest.fixture
def weights():
    draws = np.random.default_rng(0)
    return {
        "token_embd.weight": draws.normal(size=(5, 64)).astype(np.float32),
        "blk.0.ffn_up.weight": draws.normal(size=(3, 64)).astype(np.float32),
        "blk.0.attn_norm.weight": draws.normal(size=7).astype(np.float32),
    }


@pytest.fixture
def source(tmp_path, weights):
    writer = gguf.GGUFWriter(tmp_path / "source.gguf", "llama")
    writer.add_context_length(77)
    for name, values in weights.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "source.gguf"


@pytest.mark.parametrize(
    ("precision", "levels", "embedding"), [("F32", 0, "F32"), ("Q8_0", 127, "Q8_0"), ("Q4_0", 8, "Q8_0")]
)
def test_a_copy_differs_by_a_step_at_most(source, weights, tmp_path, precision, levels, embedding):
    target = copied(source, tmp_path / "copy.gguf", precision)
    reader = gguf.GGUFReader(target)
    assert reader.get_field("llama.context_length").contents() == 77
    kinds = {}
    for tensor in reader.tensors:
        kinds[tensor.name] = tensor.tensor_type.name
        wanted = torch.from_numpy(weights[tensor.name]).bfloat16().float().numpy()
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        if kinds[tensor.name] == "F32":
            np.testing.assert_array_equal(found, wanted)
        else:
            blocks = np.abs(wanted.reshape(-1, 32))
            step = blocks.max(1, keepdims=True) / (127 if kinds[tensor.name] == "Q8_0" else levels)
            off = np.abs(found.reshape(-1, 32) - wanted.reshape(-1, 32))
            # Half a step, and the rounding of the step to float16; of 16 levels, one end is a step short.
            assert (off <= step * (0.6 if kinds[tensor.name] == "Q8_0" else 1.01)).all()
            assert off.max() > 0
    assert kinds["token_embd.weight"] == embedding
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.0.ffn_up.weight"] == precision
    written = target.stat().st_mtime_ns
    assert copied(source, target, precision).stat().st_mtime_ns == written
