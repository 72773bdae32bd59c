"""Copies of a GGUF file in another precision: in float32, llama.cpp and the engine in this process compute alike."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rag_backbone.loading.cache_folder import atomic_file

Precision = Literal["F32", "Q8_0", "Q4_0"]


def copied(source: Path, target: Path, precision: Precision) -> Path:
    """Write the weights of a GGUF file in another precision, with the same metadata.

    The dequantised values are rounded to bfloat16 first, as `"embedded"` stores them. With `"Q4_0"`, embeddings are in
    `"Q8_0"`, as llama.cpp's own files have them in more bits than the rest; vectors are in float32.

    Args:
        source: A GGUF file in any quantisation.
        target: The new file; an existing one is kept.
        precision: Float32, or integers of 8 or 4 bits with a scale for each 32.
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
        for tensor in reader.tensors:
            values = _rounded(gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
            embedding = tensor.name.startswith(("token_embd", "output."))
            kind = gguf.GGMLQuantizationType[
                "F32" if values.ndim == 1 else "Q8_0" if embedding and precision == "Q4_0" else precision
            ]
            writer.add_tensor(tensor.name, gguf.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
