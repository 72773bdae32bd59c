"""A GGUF file of the same weights in float32, so that llama.cpp and the engine in this process compute alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag_backbone.loading.cache_folder import atomic_file


def float32_copy(source: Path, target: Path) -> Path:
    """Write the dequantised weights of a GGUF file as float32, with the same metadata.

    The values are rounded to bfloat16 first, as `"embedded"` stores them.

    Args:
        source: A GGUF file in any quantisation.
        target: The new file, 4 bytes per weight; an existing one is kept.
    """
    import gguf

    if target.is_file():
        return target
    reader = gguf.GGUFReader(source)
    with atomic_file(target) as temporary:
        architecture = reader.get_field("general.architecture")
        writer = gguf.GGUFWriter(temporary, architecture.contents() if architecture else "llama")
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
                continue
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        for tensor in reader.tensors:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            writer.add_tensor(tensor.name, _rounded(values))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
