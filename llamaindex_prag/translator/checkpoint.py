"""Writes and reads a translator's checkpoint: weights as safetensors, configuration as JSON, never a pickle.

    translator.json           the configuration (`TranslatorConfig`), SHA-256 of the weights, record of the training
    translator.safetensors    the network's weights

The folder is written atomically. A checkpoint whose parts do not match is rejected with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.errors import NO_TRANSLATOR, TranslatorError
from llamaindex_prag.store.folders import write_folder
from llamaindex_prag.translator.config import TranslatorConfig
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "translator.json"
WEIGHTS = "translator.safetensors"


def write(folder: Path, config: TranslatorConfig, weights: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a checkpoint, replacing an earlier one.

    Raises:
        TranslatorError: If the folder holds anything else, or cannot be written.
    """
    from safetensors.torch import save

    content = save({name: value.detach().cpu().contiguous() for name, value in weights.items()})
    described = config.to_dict() | {"sha256": hashlib.sha256(content).hexdigest(), "record": dict(record)}
    try:
        write_folder(folder, {CONFIG: (json.dumps(described, indent=1) + "\n").encode(), WEIGHTS: content})
    except FileExistsError as error:
        raise TranslatorError(str(error)) from error
    except OSError as error:
        raise TranslatorError(f"the translator cannot be written to {folder}: {error}") from error


def require(folder: str | Path) -> Path:
    """Return the folder of a checkpoint, without reading it; called before a model is loaded.

    Raises:
        TranslatorError: If there is no checkpoint.
    """
    if not (Path(folder) / CONFIG).is_file():
        raise TranslatorError(f"there is no translator in {folder}: {CONFIG} is missing. {NO_TRANSLATOR}")
    return Path(folder)


def read(folder: Path) -> tuple[TranslatorConfig, dict[str, Tensor], dict[str, Any]]:
    """Return the configuration, the weights and the training record of a checkpoint.

    Raises:
        TranslatorError: If there is no checkpoint, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        described = json.loads((folder / CONFIG).read_text("utf-8"))
        content = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise TranslatorError(f"there is no translator in {folder}: {error.filename} is missing") from error
    except (OSError, ValueError) as error:
        raise TranslatorError(f"the translator in {folder} cannot be read: {error}") from error
    if not isinstance(described, dict):
        raise TranslatorError(f"{folder / CONFIG} does not describe a translator")
    digest, record = described.pop("sha256", None), described.pop("record", {})
    try:
        config = TranslatorConfig.from_dict(described)
    except ConfigurationError as error:
        raise TranslatorError(f"the translator in {folder} cannot be used: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise TranslatorError(f"{folder / WEIGHTS} is truncated or damaged: its SHA-256 is not the one in {CONFIG}")
    try:
        return config, load(content), record
    except SafetensorError as error:
        raise TranslatorError(f"{folder / WEIGHTS} cannot be read: {error}") from error
