"""DyPRAG's second stage: a translator learns to reproduce trained adapters (Tan et al. 2025, section 3.3).

    L = CE + 0.01 KL(trained adapter || translated) + 100 sum over tensors of MSE(translated, trained)

CE and KL are computed on one of the document's PRAG sequences, all of whose tokens count. The KL is a sum over the
tokens, the MSE a mean over each tensor's values (`A` and `B` of every adapted layer).

`sequences="first"`, as in the released code, uses the first sequence of each document, whose prompt contains the
passage, so no closed-book sequence is ever seen. `"drawn"` samples from all sequences, including the closed-book ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.augment.choice import settled
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.training.distillation import TOP
from llamaindex_prag.training.examples import Example, Teacher, prag_examples
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.training.corpus import Corpus, Lesson, questions_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from llamaindex_prag.adapters.layout import Layout
    from llamaindex_prag.adapters.source import ReadableStore
    from llamaindex_prag.translator.training.plan import TrainingPlan
    from llamaindex_prag.translator.translator import Translator


def with_adapters(corpus: Corpus, translator: Translator, adapters: ReadableStore) -> Corpus:
    """Return the corpus without the training lessons that have no trained adapter.

    Raises:
        TranslatorError: If no training lesson is left.
    """
    kept = tuple(lesson for lesson in corpus.train if _key(translator, lesson.text) in adapters)
    if not kept:
        raise TranslatorError(
            f"none of the {len(corpus.train)} passages has an adapter of the recipe {translator.config.recipe.name!r} "
            "in the store; train the adapters first: dynprag parametrize"
        )
    return Corpus(kept, corpus.validation)


class Imitation:
    """The loss of imitating trained adapters, and its gradient with respect to the translated adapters' values.

    Args:
        translator: The translator.
        adapters: The adapters to imitate, trained with the translator's recipe.
        losses: Losses for the translator's model and layout.
        plan: Sets the weights of the loss terms.
    """

    def __init__(
        self, translator: Translator, adapters: ReadableStore, losses: DocumentLosses, plan: TrainingPlan
    ) -> None:
        self._translator = translator
        self._adapters = adapters
        self._losses = losses
        self._plan = plan
        self._shares = tensor_shares(translator.config.layout).to(translator.lm.model.device)

    def targets(self, texts: Sequence[str]) -> tuple[Tensor, float]:
        """Return the (documents, layout.size) values of the trained adapters, and their scale.

        Raises:
            AdapterMissingError: If one of the adapters is no longer in the store.
        """
        config = self._translator.config
        values = np.empty((len(texts), config.layout.size), np.float32)
        scales = {
            self._adapters.read_into(_key(self._translator, t), row) for t, row in zip(texts, values, strict=True)
        }
        return torch.from_numpy(values).to(self._shares.device), scales.pop()

    def distance(self, values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (documents,) sums over tensors of the mean squared difference, and the gradient in `values`."""
        apart = values.detach() - targets
        return (apart * apart) @ self._shares, 2 * apart * self._shares

    def of_step(self, lessons: Sequence[Lesson], values: Tensor, step: int) -> tuple[float, Tensor]:
        """Compute the published loss of a step.

        Args:
            lessons: Lessons of the step.
            values: (documents, layout.size) values that the network generated for them.
            step: Number of the step; with the plan's seed, it determines which sequences are used.

        Returns:
            The mean loss over the documents, and the gradient of the summed loss in `values`.
        """
        plan, config = self._plan, self._translator.config
        targets, scale = self.targets([lesson.text for lesson in lessons])
        told = [self._sequence(lesson, step) for lesson in lessons]
        thought = [Example(e.ids, 1, t) for e, t in zip(told, self._thoughts(told, targets, scale), strict=True)]
        distances, gradient = self.distance(values, targets)
        loss = plan.mse * distances.cpu().numpy()
        gradient = plan.mse * gradient
        engine = self._translator.lm.engine
        factors = engine.run(DocumentFactors, engine.model, config.layout, values, len(lessons), config.scale)
        # The losses are means over a sequence's tokens, but the KL term is a sum.
        lengths = torch.tensor([float(e.counted) for e in told], device=gradient.device)
        for examples, weights in ((told, torch.ones_like(lengths)), (thought, plan.kl * lengths)):
            found = self._losses.backward(factors, {i: [e] for i, e in enumerate(examples)}, {})
            gradient += weights[:, None] * factors.gradients
            factors.gradients.zero_()
            loss += weights.cpu().numpy() * np.array([found[i] for i in range(len(examples))])
        return float(loss.mean()), gradient

    def _sequence(self, lesson: Lesson, step: int) -> Example:
        tokenizer, plan = self._translator.lm.tokenizer, self._plan
        examples = prag_examples(tokenizer, lesson.text, None, questions_of(lesson, plan.phrases)[:3])
        if plan.sequences == "first":
            return examples[0]
        return random.Random(f"{plan.seed}/{step}/{text_hash(lesson.text)}").choice(examples)  # noqa: S311

    @torch.no_grad()
    def _thoughts(self, examples: Sequence[Example], targets: Tensor, scale: float) -> list[Teacher]:
        """Return the distributions of the model with each document's trained adapter, over that document's sequence."""
        engine, layout = self._translator.lm.engine, self._translator.config.layout
        found = []
        for i, example in enumerate(examples):
            factors = engine.run(DocumentFactors, engine.model, layout, targets[i : i + 1], 1, scale)
            found.append(engine.run(_thought, engine.model, factors, example))
        return found


def _thought(model: PreTrainedModel, factors: DocumentFactors, example: Example) -> Teacher:
    with factors.on(torch.zeros(1, dtype=torch.long, device=model.device)):
        logits = model(input_ids=torch.tensor([example.ids], device=model.device), use_cache=False).logits
    logprobs = logits[0, :-1].float().log_softmax(-1)
    best = logprobs.topk(min(TOP, logprobs.shape[-1]))
    return Teacher(best.indices.cpu(), best.values.cpu())


def tensor_shares(layout: Layout) -> Tensor:
    """Return (layout.size,) weights: for each value, 1 over the number of values in its tensor."""
    shares = torch.empty(layout.size)
    for target, a, b in zip(layout.targets, layout.a_offsets, layout.b_offsets, strict=True):
        for offset, width in ((a, target.inputs), (b, target.outputs)):
            shares[offset : offset + layout.rank * width] = 1 / (layout.rank * width)
    return shares


def _key(translator: Translator, text: str) -> AdapterKey:
    return AdapterKey(translator.config.model, settled(translator.config.recipe, translator.lm).key, text_hash(text))
