"""Losses of the counted tokens, and the logits that they need: only those.

The decoder runs over whole sequences, but the vocabulary's projection, the most expensive layer of a small model, runs
over the positions that predict a counted token, gathered into one contiguous matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from llamaindex_prag.training.examples import Example

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class CountedLogits:
    """Logits at chosen positions of a batch.

    Whether decoder and output layer alone give the model's logits (some families scale or cap them) is tried out once;
    where they do not, the whole model is run.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._apart = self._tried()

    def __call__(self, ids: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """(counted, vocabulary) float32 of (rows, tokens) ids, at `positions[i]` of row `rows[i]`."""
        if self._apart:
            states = self._model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            return self._model.get_output_embeddings()(states[rows, positions]).float()
        return self._model(input_ids=ids, use_cache=False).logits[rows, positions].float()

    def _tried(self) -> bool:
        model = self._model
        ids = torch.arange(1, 6, device=model.device)[None] % model.get_input_embeddings().num_embeddings
        with torch.no_grad():
            try:
                states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
                apart = model.get_output_embeddings()(states)
            except (AttributeError, TypeError):
                return False
            return bool(torch.allclose(apart, model(input_ids=ids, use_cache=False).logits, atol=1e-3, rtol=1e-3))


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences padded to one length, and where their counted tokens are predicted."""

    ids: Tensor
    """(rows, tokens) int64, padded on the right: causal attention never looks there."""
    rows: Tensor
    """(counted,) the row of each counted token."""
    positions: Tensor
    """(counted,) the position that predicts it."""
    weights: Tensor
    """(counted,) float32: its share in the loss."""
    examples: tuple[Example, ...]

    @property
    def targets(self) -> Tensor:
        """(counted,) the tokens themselves."""
        return self.ids[self.rows, self.positions + 1]


def batch_of(examples: Sequence[Example], weights: Sequence[float], pad: int, device: torch.device) -> Batch:
    """Put examples together; `weights[i]` is the share of each counted token of example `i`."""
    width = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), width), pad)
    rows, positions, shares = [], [], []
    for i, example in enumerate(examples):
        ids[i, : len(example.ids)] = torch.tensor(example.ids)
        rows.append(torch.full((example.counted,), i))
        positions.append(torch.arange(example.counted_from - 1, len(example.ids) - 1))
        shares.append(torch.full((example.counted,), weights[i]))
    at, places, weight = (torch.cat(parts).to(device) for parts in (rows, positions, shares))
    return Batch(ids.to(device), at, places, weight, tuple(examples))


def losses_of(logits: Tensor, batch: Batch) -> Tensor:
    """(counted,) weighted losses: cross entropy, or the divergence from a teacher.

    Args:
        logits: (counted, vocabulary) float32.
        batch: Its examples have all a teacher, or none has.
    """
    if batch.examples[0].teacher is None:
        losses = functional.cross_entropy(logits, batch.targets, reduction="none")
    else:
        teachers = [e.teacher for e in batch.examples]
        ids = torch.cat([t.ids for t in teachers if t is not None]).to(logits.device)
        logprobs = torch.cat([t.logprobs for t in teachers if t is not None]).to(logits.device)
        losses = divergence(logits, ids, logprobs)
    return losses * batch.weights


def divergence(logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """KL(teacher || student) over the teacher's likeliest tokens and one outcome for all others.

        sum_v p_T(v) (log p_T(v) - log p_S(v)) + r_T (log r_T - log r_S),    r = 1 - sum_v p(v)

    Args:
        logits: (n, vocabulary) of the student.
        ids: (n, top) the teacher's likeliest tokens.
        logprobs: (n, top) float32, the teacher's log-probabilities of them.

    Returns:
        (n,) nats; at most the divergence over the whole vocabulary, and 0 exactly where both agree on these outcomes.
    """
    log_z = logits.logsumexp(-1, keepdim=True)
    found = logits.gather(1, ids) - log_z
    named = (logprobs.exp() * (logprobs - found)).sum(-1)
    tiny = 1e-6
    rest_teacher = (1 - logprobs.exp().sum(-1)).clamp_min(tiny)
    rest_student = (1 - found.exp().sum(-1)).clamp_min(tiny)
    return named + rest_teacher * (rest_teacher.log() - rest_student.log())
