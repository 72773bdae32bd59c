"""Adapters as GGUF files, which llama.cpp loads beside its GGUF file of the base model.

    general.architecture                            that of the base model
    adapter.lora.alpha                              alpha / rank is our scale
    adapter.alora.invocation_tokens                 only if the adapter acts from the answer on
    blk.<n>.<layer>.weight.lora_a  (rank, in)       our A
    blk.<n>.<layer>.weight.lora_b  (out, rank)      our B

llama.cpp rotates neighbouring pairs of a head's dimensions, Transformers the first half of a head with the second. So
in files of the `llama` architecture the rows of the query and key projections are in another order, and so are the rows
of their `B`. Other architectures keep the order; those whose files were not compared with Transformers are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Target
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.extras import needed_for
from rag_backbone.loading.cache_folder import atomic_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PERMUTED = {"llama": True, "qwen2": False, "qwen3": False}
"""Architecture to whether the rows of its query and key projections are in another order than in Transformers."""
_BASE = "dynprag.base_model"


@dataclass(frozen=True)
class GGUFModel:
    """What a GGUF file says about a base model.

    Build it with `GGUFModel.read`.
    """

    path: Path
    architecture: str
    blocks: int
    heads: int
    kv_heads: int
    quantisation: str
    """The type of most weights, such as `"Q4_K_M"` or `"F16"`."""
    shapes: dict[str, tuple[int, ...]]
    """Tensor name to its (out, in), without the suffix `.weight`."""

    @classmethod
    def read(cls, path: str | Path) -> GGUFModel:
        """Read a file's metadata.

        Raises:
            ConfigurationError: If it is not the GGUF file of a language model of a known architecture.
        """
        reader = _reader(path)

        def value(name: str, default: Any = None) -> Any:
            field = reader.get_field(name)
            return default if field is None else field.contents()

        architecture = str(value("general.architecture", ""))
        if value("general.type", "model") != "model" or architecture not in _PERMUTED:
            raise ConfigurationError(
                f"{path} is of type {value('general.type', 'model')!r} and architecture {architecture!r}; adapters are "
                f"written for files of type 'model' and one of the architectures {', '.join(_PERMUTED)}"
            )
        heads = int(value(f"{architecture}.attention.head_count"))
        return cls(
            path=Path(path),
            architecture=architecture,
            blocks=int(value(f"{architecture}.block_count")),
            heads=heads,
            kv_heads=int(value(f"{architecture}.attention.head_count_kv", heads)),
            quantisation=_file_type(value("general.file_type")),
            shapes={t.name.removesuffix(".weight"): tuple(int(n) for n in t.shape[::-1]) for t in reader.tensors},
        )

    def tensor_of(self, target: Target) -> str:
        """Return the name of a layer's weight, without the suffix `.weight`.

        Raises:
            AdapterError: If the file has no such layer, or one of another shape, as the file of another model.
        """
        import gguf

        kind = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture)
        name = gguf.get_tensor_name_map(kind, self.blocks).get_name(target.name)
        if name is None or self.shapes.get(name) != (target.outputs, target.inputs):
            found = "no such layer" if name not in self.shapes else f"one of shape {self.shapes[name]}"
            raise AdapterError(
                f"the adapter changes {target.name} of shape {(target.outputs, target.inputs)}, but {self.path} has "
                f"{found}; it is the file of another model"
            )
        return name

    def permuted_heads(self, name: str) -> int | None:
        """Return the number of heads of a layer whose rows are in llama.cpp's order; None if they are not."""
        layer = name.rpartition(".")[2]
        if not _PERMUTED[self.architecture] or layer not in ("attn_q", "attn_k"):
            return None
        return self.heads if layer == "attn_q" else self.kv_heads

    def full_precision(self, name: str) -> NDArray[np.float32] | None:
        """Return a tensor that the file holds in float32, as it does those of one dimension; None if it has none."""
        import numpy as np

        found = next((t for t in _reader(self.path).tensors if t.name == name), None)
        return None if found is None or found.data.dtype != np.float32 else np.array(found.data)


def export_gguf(
    adapter: Adapter,
    path: str | Path,
    *,
    base: GGUFModel | str | Path,
    base_model: str = "",
    invocation: Sequence[int] = (),
) -> Path:
    """Write an adapter for llama.cpp; the file is written atomically.

    Args:
        adapter: The adapter.
        path: The new file, by convention with the suffix `.gguf`.
        base: The base model's GGUF file, in any quantisation, or what was read from it.
        base_model: Fingerprint of the base model, recorded in the file.
        invocation: Tokens from whose last occurrence in the prompt on the adapter acts (activated LoRA); none to act on
            every token.

    Returns:
        The file.

    Raises:
        AdapterError: If the adapter's layers are not those of the base model, or values are not finite.
        ConfigurationError: If `base` is not a model file of a known architecture.
        MissingExtraError: If `gguf` is not installed.
    """
    import numpy as np

    with needed_for("writing GGUF files"):
        import gguf

    adapter.check()
    model = base if isinstance(base, GGUFModel) else GGUFModel.read(base)
    names = {target.name: model.tensor_of(target) for target in adapter.layout.targets}
    with atomic_file(Path(path)) as temporary:
        writer = gguf.GGUFWriter(temporary, model.architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.scale * adapter.layout.rank)
        if base_model:
            writer.add_string(_BASE, base_model)
        if invocation:  # llama.cpp takes unsigned numbers only, and the writer's own choice is signed
            writer.add_key_value(
                gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS,
                list(invocation),
                gguf.GGUFValueType.ARRAY,
                sub_type=gguf.GGUFValueType.UINT32,
            )
        for target, a, b in adapter.layout.factors(adapter.buffer):
            name = names[target.name]
            heads = model.permuted_heads(name)
            rows = b if heads is None else _to_pairs(b, heads)
            writer.add_tensor(f"{name}.weight.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{name}.weight.lora_b", np.ascontiguousarray(rows))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Path(path)


def _to_pairs(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder (out, rank) rows from halves of each head to neighbouring pairs."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _reader(path: str | Path) -> Any:
    with needed_for("reading GGUF files"):
        import gguf

    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{path} cannot be read as a GGUF file: {error}") from error


def _file_type(number: Any) -> str:
    import gguf

    try:
        return gguf.LlamaFileType(int(number)).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (TypeError, ValueError):
        return "unknown"
