"""Limit how much adapters change the model's answers on other subjects.

    probes: questions on other subjects, and the base model's own answers to them
    forgetting = mean over the answers' tokens of KL(base || adapted)                     nats

If a selection of adapters forgets more than a bound allows, its strength is reduced. For small updates, the divergence
grows with the square of the strength, so one measurement gives a first guess, s sqrt(bound / forgetting), and each
further measurement corrects it. A selection that exceeds the bound even at the smallest strength belongs in the prompt
instead.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.training.distillation import UNRELATED, taught
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.objective import CountedLogits, batch_of, losses_of
from llamaindex_prag.training.packs import Pack
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from llamaindex_prag.adapter_model import LocalModel

PROBES = UNRELATED[:8]
BOUND = 0.01
"""Nats per token. Within this bound, answers to unrelated questions lost nothing measurable; within 0.05 they did
(docs/results-translator.md)."""
_ATTEMPTS = 4
_REMEMBERED = 1024
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Guarded:
    """A selection, as strong as the bound allows."""

    selection: ActiveAdapters | None
    """None: the selection forgets too much even at the smallest strength."""
    part: float
    """Fraction of the requested strength."""
    forgetting: float
    """Forgetting at that strength, in nats."""
    unguarded: float
    """Forgetting at the requested strength, in nats."""


class ForgettingGuard:
    """Measures how much adapters change unrelated answers, and weakens them until the change is within a bound.

    Args:
        model: The model with its adapters.
        bound: Maximum divergence of unrelated answers, in nats per token.
        probes: Unrelated questions.
        least: Smallest fraction of the strength that is tried.

    Raises:
        ConfigurationError: If there are no probes, or a number is out of range.
    """

    def __init__(
        self, model: LocalModel, *, bound: float = BOUND, probes: Sequence[str] = PROBES, least: float = 0.1
    ) -> None:
        if not probes or not all(p.strip() for p in probes):
            raise ConfigurationError("probes must be questions: at least one, and none of them blank")
        if not (math.isfinite(bound) and bound > 0) or not 0 < least <= 1:
            raise ConfigurationError(
                f"bound is {bound} and least is {least}; both must be above 0, and least must be at most 1"
            )
        self.model = model
        self.bound = bound
        self.least = least
        self._probes = tuple(probes)
        self._lock = threading.Lock()
        self._examples: tuple[Example, ...] = ()
        self._logits: CountedLogits | None = None
        self._measured: OrderedDict[Hashable, float] = OrderedDict()

    def forgetting(self, selection: ActiveAdapters) -> float:
        """Return KL(base || adapted) in nats, the mean over the probes' answer tokens; cached per selection."""
        with self._lock:
            known = self._measured.get(selection.cache_key)
        if known is not None:
            return known
        found = self._measure(selection)
        with self._lock:
            self._measured[selection.cache_key] = found
            while len(self._measured) > _REMEMBERED:
                self._measured.popitem(last=False)
        return found

    def guarded(self, selection: ActiveAdapters) -> Guarded:
        """Return the selection, weakened as far as the bound requires."""
        unguarded = found = self.forgetting(selection)
        part, weaker = 1.0, selection
        for _ in range(_ATTEMPTS):
            if found <= self.bound or part <= self.least:
                break
            # Slightly below the square root's guess, so that the next measurement is likely to be the last.
            part = max(self.least, part * min(0.95 * math.sqrt(self.bound / found), 0.9))
            weaker = selection.times(part)
            found = self.forgetting(weaker)
        return Guarded(weaker if found <= self.bound else None, part, found, unguarded)

    @torch.inference_mode()
    def _measure(self, selection: ActiveAdapters) -> float:
        logits_of, examples = self._prepared()
        engine = self.model.lm.engine
        total = counted = 0.0
        for pack in logits_of.packs(examples, _TOKENS_AT_ONCE):
            losses = engine.run(self._losses, engine.model, pack, logits_of, selection)
            total += float(losses.sum())
            counted += len(losses)
        return total / counted

    def _losses(
        self, model: PreTrainedModel, pack: Pack, logits_of: CountedLogits, selection: ActiveAdapters
    ) -> Tensor:
        batch = batch_of([pack], model.device, pad=self.model.lm.tokenizer.pad_token_id or 0)
        with self.model.bank.activate([selection]):
            return losses_of(logits_of(batch), batch)

    def _prepared(self) -> tuple[CountedLogits, tuple[Example, ...]]:
        """Return the base model's logits and its answers to the probes, generated on first use."""
        with self._lock:
            if self._logits is None:
                engine = self.model.lm.engine
                prompts = [prompt_ids(engine.tokenizer, probe) for probe in self._probes]
                self._examples = tuple(taught(engine, prompts))
                if not self._examples:
                    raise ConfigurationError("the model answers none of the probes; give other questions")
                self._logits = engine.run(CountedLogits, engine.model)
            return self._logits, self._examples

    def __repr__(self) -> str:
        return f"ForgettingGuard(bound={self.bound:g} nats, {len(self._probes)} probes)"
