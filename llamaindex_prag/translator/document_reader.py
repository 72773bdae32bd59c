"""Reads documents with the base model and returns the hidden states of some layers at every token.

Documents are read as plain text, without a template and without adapters. A document longer than the window is read in
independent pieces whose states are concatenated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from rag_backbone.errors import ConfigurationError
from rag_backbone.text.special_tokens import neutralised

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from rag_backbone.engine.engine import Engine

logger = logging.getLogger(__name__)


class DocumentReader:
    """Reads documents with one model.

    Args:
        engine: The engine that owns the model.
        layers: Decoder layers whose output is wanted; the number of layers stands for the state after the final norm.
        window: Maximum number of tokens in a piece.
        tokens_at_once: Maximum number of padded tokens in one forward pass.

    Raises:
        ConfigurationError: If the model does not have one of the layers.
    """

    def __init__(
        self, engine: Engine, layers: Sequence[int], *, window: int = 1024, tokens_at_once: int = 2048
    ) -> None:
        count = len(engine.model.get_decoder().layers)
        if max(layers) > count:
            raise ConfigurationError(f"read_layers are {tuple(layers)}; the model has {count} layers")
        self._engine = engine
        self._layers = tuple(layers)
        self._window = window
        self._tokens = tokens_at_once

    def states(self, texts: Sequence[str]) -> list[Tensor]:
        """Return (tokens, layers, hidden) states of each text, in the model's data type.

        Raises:
            ConfigurationError: If a text is blank.
        """
        pieces: list[tuple[int, list[int]]] = []
        for number, text in enumerate(texts):
            ids = self.ids(text)
            if len(ids) > self._window:
                count = -(-len(ids) // self._window)
                logger.info("a document of %d tokens is read in %d pieces of at most %d", len(ids), count, self._window)
            pieces += [(number, ids[i : i + self._window]) for i in range(0, len(ids), self._window)]
        read: dict[int, Tensor] = {}
        for part in self._parts(pieces):
            found = self._engine.run(self._read, self._engine.model, [pieces[i][1] for i in part])
            read |= dict(zip(part, found, strict=True))
        return [
            torch.cat([read[i] for i, (of, _) in enumerate(pieces) if of == number]) for number in range(len(texts))
        ]

    def ids(self, text: str) -> list[int]:
        """Tokenize a text, neutralising special tokens in it.

        Raises:
            ConfigurationError: If the text is blank.
        """
        if not text.strip():
            raise ConfigurationError("a document is blank; a translator needs its text")
        tokenizer = self._engine.tokenizer
        return list(tokenizer(neutralised(tokenizer, text.strip())).input_ids)

    def _parts(self, pieces: Sequence[tuple[int, list[int]]]) -> list[list[int]]:
        """Group pieces of similar length into forward passes; returns their indices."""
        parts: list[list[int]] = []
        for i in sorted(range(len(pieces)), key=lambda i: len(pieces[i][1])):
            if parts and (len(parts[-1]) + 1) * len(pieces[i][1]) <= self._tokens:
                parts[-1].append(i)
            else:
                parts.append([i])
        return parts

    @torch.no_grad()
    def _read(self, model: PreTrainedModel, pieces: Sequence[Sequence[int]]) -> list[Tensor]:
        longest = max(map(len, pieces))
        pad = self._engine.tokenizer.pad_token_id or 0
        # Padding is on the right, where causal attention never sees it.
        ids = torch.tensor([[*piece, *[pad] * (longest - len(piece))] for piece in pieces], device=model.device)
        decoder = model.get_decoder()
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(_module: Any, _args: Any, output: Any) -> None:
                found[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        count = len(decoder.layers)
        handles = [decoder.layers[i].register_forward_hook(keep(i)) for i in self._layers if i < count]
        try:
            found[count] = decoder(input_ids=ids, use_cache=False).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        states = torch.stack([found[i] for i in self._layers], 2)
        return [row[: len(piece)] for row, piece in zip(states, pieces, strict=True)]
