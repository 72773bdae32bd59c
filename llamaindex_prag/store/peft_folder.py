"""Adapters as folders that PEFT reads and writes.

    adapter_config.json          r, lora_alpha (alpha / r is our scale), target_modules by full name
    adapter_model.safetensors    base_model.model.<target>.lora_A.weight (r, in), ...lora_B.weight (out, r)

Only plain LoRA is supported. PEFT's extensions (DoRA, rank-stabilised scaling, biases, ranks that differ between
layers, initialisations that change the base weights) are refused with a message that names them. Pickles are never
read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.errors import PeftFolderError
from llamaindex_prag.store.folders import write_folder

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_PLAIN_INITS = {True, False, None, "gaussian", "orthogonal", "eva"}
_PLAIN = {
    "fan_in_fan_out": "the layer's weights are transposed",
    "modules_to_save": "it contains whole layers",
    "rank_pattern": "ranks differ between layers",
    "alpha_pattern": "scales differ between layers",
    "lora_bias": "its B has a bias",
    "layer_replication": "it repeats layers of the model",
    "trainable_token_indices": "it changes embeddings",
    "target_parameters": "it changes parameters that are not linear layers",
    "alora_invocation_tokens": "it is active for part of the tokens only",
}


def export_peft(adapter: Adapter, folder: str | Path, *, base_model_name: str) -> Path:
    """Write an adapter in PEFT's format; the folder is written atomically.

    Args:
        adapter: The adapter.
        folder: A new folder, or one with an adapter, which is replaced.
        base_model_name: Name or folder of the base model, for loading the adapter on its own.

    Returns:
        The folder.

    Raises:
        PeftFolderError: If the folder holds something else, or cannot be written.
    """
    from safetensors.numpy import save

    adapter.check()
    folder = Path(folder)
    config = json.dumps(peft_config(adapter, base_model_name), indent=2) + "\n"
    weights = save(dict(peft_tensors(adapter)), metadata={"format": "pt"})
    try:
        write_folder(folder, {CONFIG: config.encode(), WEIGHTS: weights})
    except FileExistsError as error:
        raise PeftFolderError(str(error)) from error
    except OSError as error:
        raise PeftFolderError(f"{folder} cannot be written: {error}") from error
    return folder


def import_peft(folder: str | Path, layout: Layout) -> Adapter:
    """Read an adapter that PEFT or `export_peft` wrote.

    Args:
        folder: The folder.
        layout: The adapter must have exactly its targets. Its rank is ignored; the adapter's rank is used.

    Raises:
        PeftFolderError: If the folder is incomplete, belongs to other layers, or is more than plain LoRA.
        AdapterError: If values are not finite.
    """
    folder = Path(folder)
    rank, scale = _plain_lora(_json(_file(folder, CONFIG)), folder)
    if not (folder / WEIGHTS).exists() and (pickles := [p.name for p in folder.glob("adapter_model*.bin")]):
        raise PeftFolderError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which can run arbitrary code when it is read. Save "
            "the adapter again with PEFT's save_pretrained(..., safe_serialization=True)."
        )
    tensors = _tensors(_file(folder, WEIGHTS))
    found = Layout(layout.targets, rank)
    buffer = np.empty(found.size, np.float32)
    for target, a, b in found.factors(buffer):
        for part, view in (("lora_A", a), ("lora_B", b)):
            name = f"{_PREFIX}{target.name}.{part}.weight"
            if (tensor := tensors.pop(name, None)) is None:
                raise PeftFolderError(f"{folder} has no {name}; the adapter has other layers than {layout!r}")
            if tensor.shape != view.shape:
                raise PeftFolderError(f"{name} in {folder} has shape {tensor.shape}; {view.shape} is needed")
            view[:] = tensor
    if tensors:
        raise PeftFolderError(f"{folder} also changes {next(iter(tensors))}, which {layout!r} does not have")
    adapter = Adapter(found, buffer, scale)
    adapter.check()
    return adapter


def peft_config(adapter: Adapter, base_model_name: str | None) -> dict[str, Any]:
    """Return the arguments of the `LoraConfig` that describes an adapter."""
    rank = adapter.layout.rank
    alpha = adapter.scale * rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": [target.name for target in adapter.layout.targets],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "inference_mode": True,
    }


def peft_tensors(adapter: Adapter) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield an adapter's factors under the names that PEFT saves them by: `A` (rank, in) and `B` (out, rank)."""
    for target, a, b in adapter.layout.factors(adapter.buffer):
        yield f"{_PREFIX}{target.name}.lora_A.weight", np.ascontiguousarray(a)
        yield f"{_PREFIX}{target.name}.lora_B.weight", np.ascontiguousarray(b)


def _plain_lora(config: Mapping[str, Any], folder: Path) -> tuple[int, float]:
    """Return rank and scale of a plain LoRA config."""
    if config.get("peft_type") != "LORA":
        raise PeftFolderError(f"{folder} holds a PEFT adapter of type {config.get('peft_type')!r}; it must be 'LORA'")
    for name in sorted(config):
        beyond = name.startswith("use_") or (name.endswith("_config") and name != "eva_config")
        if config[name] and (name in _PLAIN or beyond):
            reason = _PLAIN.get(name, "that is more than plain LoRA")
            raise PeftFolderError(f"{folder} has {name} = {config[name]!r}: {reason}, so it cannot be read")
    if config.get("bias", "none") != "none":
        raise PeftFolderError(
            f"{folder} has bias = {config['bias']!r}; adapters change no biases, so it must be 'none'"
        )
    init = config.get("init_lora_weights", True)
    if not isinstance(init, str | bool | None) or init not in _PLAIN_INITS:
        raise PeftFolderError(
            f"{folder} has init_lora_weights = {init!r}, which changes the base weights. Convert it with PEFT's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise PeftFolderError(f"{folder} has r = {rank!r} and lora_alpha = {alpha!r}; both must be numbers above 0")
    if not (math.isfinite(alpha) and alpha > 0):
        raise PeftFolderError(f"{folder} has lora_alpha = {alpha!r}; it must be a finite number above 0")
    return rank, alpha / rank


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise PeftFolderError(f"{folder} has no {name}; a PEFT adapter folder has {CONFIG} and {WEIGHTS}")
    resolved, home = path.resolve(), folder.resolve()
    # The Hub's cache stores files as links from snapshots/<commit>/ to blobs/ next to snapshots/.
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if resolved.parent not in {home, blobs}:
        raise PeftFolderError(f"{path} is a link to {resolved}, outside the folder; it is not followed")
    return resolved


def _json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PeftFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise PeftFolderError(f"{path} holds a {type(config).__name__}; an object is needed")
    return config


def _tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise PeftFolderError(f"{path} is damaged or not a safetensors file: {error}") from error
    return {name: _float32(entry, f"{name} in {path}") for name, entry in entries}


def _float32(entry: Mapping[str, Any], what: str) -> NDArray[np.float32]:
    # Decode manually, because NumPy has no bfloat16.
    kind, data, shape = entry["dtype"], entry["data"], tuple(entry["shape"])
    if kind == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif kind in {"F16", "F32", "F64"}:
        with np.errstate(over="ignore"):
            values = np.frombuffer(data, f"<f{int(kind[1:]) // 8}").astype(np.float32)
    else:
        raise PeftFolderError(f"{what} is of type {kind}; it must be F32, F16, BF16 or F64")
    result: NDArray[np.float32] = values.reshape(shape)
    return result
