"""The base model's hidden states of passages and questions during a translator's training: computed or cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.gradients import DocumentLosses

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from llamaindex_prag.translator.training.state_cache import KeptStates
    from llamaindex_prag.translator.translator import Translator


class BaseStates:
    """Hidden states of a translator's base model.

    Args:
        translator: The translator.
        losses: Losses for the translator's model and layout.
        kept: Cache of the states; None to compute them each time.
    """

    def __init__(self, translator: Translator, losses: DocumentLosses, kept: KeptStates | None) -> None:
        self._translator = translator
        self._losses = losses
        self._kept = kept

    def of_passages(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the (tokens, layers read, hidden) states of each passage, the input of its representation."""
        reader, config = self._translator.reader, self._translator.config
        if self._kept is None:
            return reader.states(texts)

        def compute(missing: list[int]) -> dict[int, Tensor]:
            return dict(zip(missing, reader.states([texts[i] for i in missing]), strict=True))

        kind = f"read {config.read_layers} {config.window}"
        return self._kept.of(kind, [reader.ids(text) for text in texts], compute, self._device)

    def below(self, asked: Mapping[int, Sequence[Example]]) -> dict[int, Tensor]:
        """Return (tokens, hidden) states below the first adapted layer by sequence `id()`; empty without a cache."""
        losses = self._losses
        if self._kept is None or not losses.first_adapted:
            return {}
        examples = [e for of_document in asked.values() for e in of_document]

        def compute(missing: list[int]) -> dict[int, Tensor]:
            made = losses.lower_states([examples[i] for i in missing])
            # Translated adapters act from the prompt on, so there are no kept prompts among the states.
            return {i: cast("Tensor", made[id(examples[i])]) for i in missing}

        kind = f"below {losses.first_adapted}"
        states = self._kept.of(kind, [e.ids for e in examples], compute, self._device)
        return {id(e): known for e, known in zip(examples, states, strict=True)}

    @property
    def _device(self) -> torch.device:
        return self._translator.lm.model.device
