"""A translator, together with the model for which it makes adapters.

    represent:  text -> a few vectors, once, when a document is indexed
    translate:  the vectors of several documents -> their adapters, in one pass, at question time

`key` gives translated adapters the same kind of key as trained ones, so a store and a bank treat both alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch

from llamaindex_prag.adapters.adapter import LARGEST_VALUE, Adapter, AdapterKey, text_hash
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.translator import checkpoint
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.document_reader import DocumentReader
from llamaindex_prag.translator.networks.dyprag import DyPRAGNetwork
from llamaindex_prag.translator.networks.shared import SharedNetwork
from llamaindex_prag.translator.representation import Representation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_backbone.loading.causal_lm import CausalLM

Network = DyPRAGNetwork | SharedNetwork


class Translator:
    """Makes adapters from documents without training.

    Args:
        lm: The base model.
        config: Configuration of the translator.
        record: Record of its training.

    Raises:
        TranslatorError: If the translator is for another model.

    Example:
        >>> translator = Translator.load("translators/smollm2", lm)  # doctest: +SKIP
        >>> kept = translator.represent(["The Patient Anna was built in Tarn Ellis."])  # doctest: +SKIP
        >>> translator.adapters(kept)  # doctest: +SKIP
        [Adapter(Layout(30 layers, rank 8, 506,880 values), scale 2)]
    """

    def __init__(self, lm: CausalLM, config: TranslatorConfig, *, record: Mapping[str, Any] | None = None) -> None:
        if config.model != lm.fingerprint:
            raise TranslatorError(
                f"the translator is for the model {config.model[:12]}…, but {lm.name} is {lm.fingerprint[:12]}…. "
                "Its adapters fit only that model; load that model, or train a translator for this one "
                "(dynprag train-translator)."
            )
        self.lm = lm
        self.config = config
        self.record = dict(record or {})
        self.folder: Path | None = None
        """Folder of the checkpoint; None if the translator was neither loaded nor saved."""
        kind = DyPRAGNetwork if config.kind == "dyprag" else SharedNetwork
        self.network: Network = kind(config).to(lm.model.device)
        self.reader = DocumentReader(lm.engine, config.read_layers, window=config.window)

    @property
    def name(self) -> str | None:
        """Name that `load` accepts for this translator; None if it has no checkpoint."""
        return None if self.folder is None else str(self.folder.resolve())

    @property
    def parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(p.numel() for p in self.network.parameters())

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits, equal exactly for the same network with the same weights.

        Cached at the first call, so it is valid only while the weights do not change.
        """
        digest = hashlib.sha256(repr(sorted(self.config.to_dict().items())).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def key(self, text: str) -> AdapterKey:
        """Return the key of a passage's translated adapter, with the translator's fingerprint as its recipe."""
        return AdapterKey(self.config.model, self.fingerprint, text_hash(text))

    @torch.no_grad()
    def represent(self, texts: Sequence[str]) -> list[Representation]:
        """Compute the representation of each text, which is what a store keeps.

        Raises:
            ConfigurationError: If a text is blank.
        """
        if not texts:
            return []
        pooled = self.network.pool(self.reader.states(texts)).float().cpu().numpy()
        return [Representation.of(vectors) for vectors in pooled]

    @torch.no_grad()
    def translate(self, representations: Sequence[Representation]) -> NDArray[np.float32]:
        """Return the (documents, layout.size) values of the documents' adapters, in one pass.

        Raises:
            TranslatorError: If a representation has another translator's shape, or a value of an adapter is not finite
                or implausibly large.
        """
        shape = (self.config.tokens, self.config.vector)
        for representation in representations:
            if representation.codes.shape != shape:
                raise TranslatorError(
                    f"a representation has the shape {representation.codes.shape}; this translator needs {shape}"
                )
        vectors = torch.from_numpy(np.stack([r.vectors for r in representations])).to(self.lm.model.device)
        values: NDArray[np.float32] = self.network.generate(vectors).float().cpu().numpy()
        largest = float(np.abs(values).max())
        if not largest <= LARGEST_VALUE:  # also true for NaN
            raise TranslatorError(f"the translator made a value of {largest:g}; its checkpoint is damaged or diverged")
        return values

    def adapters(self, representations: Sequence[Representation]) -> list[Adapter]:
        """Return the documents' adapters; see `translate`."""
        return [Adapter(self.config.layout, values, self.config.scale) for values in self.translate(representations)]

    def save(self, folder: str | Path, *, dtype: Literal["float32", "float16"] = "float32") -> Path:
        """Write a checkpoint atomically.

        Args:
            folder: Where to write it.
            dtype: Data type of the weights in the file. `"float16"` halves the size, but what is loaded from it is a
                different translator, with a different fingerprint.

        Raises:
            TranslatorError: If the folder holds anything else, or cannot be written.
        """
        weights = {name: value.to(getattr(torch, dtype)) for name, value in self.network.state_dict().items()}
        checkpoint.write(Path(folder), self.config, weights, self.record)
        self.folder = Path(folder)
        return self.folder

    @classmethod
    def load(cls, folder: str | Path, lm: CausalLM) -> Self:
        """Load a translator from a checkpoint.

        Args:
            folder: Folder of the checkpoint.
            lm: The model that the translator is for.

        Raises:
            TranslatorError: If there is no checkpoint, it is damaged, or it is for another model.
        """
        folder = checkpoint.require(folder)
        config, weights, record = checkpoint.read(folder)
        made = cls(lm, config, record=record)
        broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if broken:
            raise TranslatorError(f"the translator in {folder} has values that are not finite in {broken[0]}")
        try:
            made.network.load_state_dict(weights)
        except RuntimeError as error:
            raise TranslatorError(
                f"the weights in {folder} are not those of its {config.kind!r} network: {error}"
            ) from error
        made.network.eval()
        made.folder = folder
        return made

    def __repr__(self) -> str:
        return (
            f"Translator({self.config.kind!r} for {self.lm.name!r}, {self.parameters:,} parameters, "
            f"{self.config.representation_bytes} bytes a document, {self.config.layout!r})"
        )
