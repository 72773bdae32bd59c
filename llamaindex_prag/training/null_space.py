"""Keeps adapters from reading what answers to general questions have in common.

What a model computes while it answers is mostly the same for all questions: that a short phrase is due, of which kind,
in which language. An adapter that reads it acts at every question, also at those that its document does not answer.
AlphaEdit (Fang et al. 2025, arXiv 2410.02355, section 3) projects an update onto the null space of the inputs that are
to be left alone. Here these are the inputs of each adapted layer at answers to questions on general subjects, and their
main directions `V` (inputs, removed) are taken out of `A` before training and after each step:

    A <- A (I - V V^T),    so that    A x = 0  for every input x = V z

What is left distinguishes questions, so an adapter acts at those it was trained on far more than at others. Storing,
merging and activating such an adapter is as for any other. Knows nothing of documents.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.targets import target_layers
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.objective import CountedLogits, batch_of, given_of
from llamaindex_prag.training.packs import Pack
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rag_backbone.engine.engine import Engine

logger = logging.getLogger(__name__)

QUESTIONS = 6
"""Questions about each of the general passages."""
TOKENS_AT_ONCE = 1024
_PASSAGES = Path(__file__).with_name("general_passages.txt")


class NullSpace:
    """The directions that the `A` of each target must not read.

    Args:
        layout: Layout of the adapters.
        directions: (inputs, removed) orthonormal columns for each target, in the layout's order.
    """

    def __init__(self, layout: Layout, directions: Sequence[Tensor]) -> None:
        self._layout = layout
        self.directions = tuple(directions)

    @classmethod
    def of(cls, engine: Engine, layout: Layout, energy: float) -> NullSpace:
        """Find the main directions of a model's inputs at answers to general questions, once per engine.

        Args:
            engine: Engine of the base model.
            layout: Layout of the adapters.
            energy: Fraction of the inputs' squared length that the removed directions hold, between 0 and 1.

        Raises:
            ConfigurationError: If no direction of a target would be left.
        """
        known, key = _KNOWN.setdefault(engine, {}), (layout.digest, energy)
        if key not in known:
            logger.info("finding what answers have in common (null_space=%s)", energy)
            known[key] = cls(layout, _directions(engine, layout, energy))
        return known[key]

    @torch.no_grad()
    def project(self, values: Tensor) -> None:
        """Take the directions out of every `A`, in place.

        Args:
            values: (documents, layout.size) factors, or gradients of factors.
        """
        for target, offset, columns in zip(self._layout.targets, self._layout.a_offsets, self.directions, strict=True):
            part = values[:, offset : offset + self._layout.rank * target.inputs].view(
                -1, self._layout.rank, target.inputs
            )
            part -= (part @ columns) @ columns.T

    def __repr__(self) -> str:
        removed = [f"{columns.shape[1]} of {columns.shape[0]}" for columns in self.directions]
        return f"NullSpace({len(removed)} layers, {removed[0]} directions removed in the first)"


_KNOWN: WeakKeyDictionary[Engine, dict[tuple[str, float], NullSpace]] = WeakKeyDictionary()


def _directions(engine: Engine, layout: Layout, energy: float) -> list[Tensor]:
    examples = general_answers(engine.tokenizer)
    logits = engine.run(CountedLogits, engine.model)
    parts = [engine.run(_inputs, engine.model, layout, logits, pack) for pack in logits.packs(examples, TOKENS_AT_ONCE)]
    found = [main_directions(torch.cat(inputs), energy) for inputs in zip(*parts, strict=True)]
    for target, columns in zip(layout.targets, found, strict=True):
        if columns.shape[1] == target.inputs:
            raise ConfigurationError(
                f"null_space is {energy}, which leaves nothing of the {target.inputs} inputs of {target.name} for "
                "adapters to read; use a smaller one"
            )
    return found


def general_answers(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Return questions by rule on general subjects, with their answers; adapters would act at the answers' tokens."""
    found = []
    for entry in _PASSAGES.read_text("utf-8").strip().split("\n\n"):
        title, text = " ".join(entry.split()).split(": ", 1)
        for qa in rule_questions(text, QUESTIONS, title=title):
            prompt = prompt_ids(tokenizer, qa.question)
            answer = answer_ids(tokenizer, qa.answer, end=True)
            found.append(Example((*prompt, *answer), len(prompt)))
    return found


def main_directions(inputs: Tensor, energy: float) -> Tensor:
    """Return the fewest orthonormal directions that hold a fraction of the inputs' squared length.

    Args:
        inputs: (n, inputs).
        energy: The fraction, between 0 and 1.

    Returns:
        (inputs, removed) float32.
    """
    _, lengths, directions = torch.linalg.svd(inputs.float(), full_matrices=False)
    held = lengths.square().cumsum(0) / lengths.square().sum()
    return directions[: int((held < energy).sum()) + 1].T.contiguous()


@torch.no_grad()
def _inputs(model: PreTrainedModel, layout: Layout, logits: CountedLogits, pack: Pack) -> list[Tensor]:
    """Return the (counted, inputs) inputs of each target at the tokens that predict a counted one."""
    batch = batch_of([pack], model.device)
    layers = target_layers(model, layout)
    found: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        found[layer] = given[0][batch.rows, batch.positions].float()

    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        logits.states(batch, given_of(batch))
    finally:
        for handle in handles:
            handle.remove()
    return [found[layer] for layer in layers]
