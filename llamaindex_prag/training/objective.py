"""Computes the losses of the counted tokens, and only the logits that these losses need.

The decoder runs over whole sequences. The output projection to the vocabulary, the most expensive layer of a small
model, runs only over the positions that predict a counted token, gathered into one contiguous matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.packs import Pack, Rows, packs_of, rows_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class CountedLogits:
    """Computes the logits of the counted tokens of a batch.

    Two things are tested once, at construction: whether decoder and output layer alone give the model's logits (some
    families scale or cap them), and whether the model handles packed sequences that share a prefix. If not, the whole
    model is run, or each sequence gets a separate row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.apart = True
        """Whether decoder and output layer alone give the model's logits."""
        self.apart, self.shares_prefixes = self._tried_apart(), self._tried_sharing()
        window = getattr(model.config.get_text_config(), "sliding_window", None)
        self.widest = window or model.config.get_text_config().max_position_embeddings
        """Maximum number of tokens in a row of several sequences."""

    def __call__(self, batch: Batch) -> Tensor:
        """Return (counted, vocabulary) float32 logits."""
        return self.run(batch, given_of(batch))

    def run(self, batch: Batch, given: Mapping[str, Any]) -> Tensor:
        """Return (counted, vocabulary) float32 logits, with these arguments of the decoder."""
        if self.apart:
            return self._model.get_output_embeddings()(self.states(batch, given)).float()
        return self._model(**given).logits[batch.rows, batch.positions].float()

    def states(self, batch: Batch, given: Mapping[str, Any]) -> Tensor:
        """Return the (counted, hidden) states that the output layer reads, with these arguments of the decoder."""
        return self._model.get_decoder()(**given).last_hidden_state[batch.rows, batch.positions]

    def packs(self, examples: Sequence[Example], limit: int) -> list[Pack]:
        """Pack the sequences as far as this model allows, at most `limit` tokens per row (or a single sequence)."""
        if self.shares_prefixes:
            return packs_of(examples, min(limit, self.widest))
        return [Pack((example,), 0) for example in examples]

    @torch.no_grad()
    def _tried_apart(self) -> bool:
        batch = batch_of([Pack((Example((1, 2, 3, 4, 5), 1),), 0)], self._model.device)
        try:
            found = self(batch)
        except (AttributeError, TypeError):
            return False
        logits = self._model(input_ids=batch.ids, use_cache=False).logits[0, :-1].float()
        return bool(torch.allclose(found, logits, atol=1e-3, rtol=1e-3))

    @torch.no_grad()
    def _tried_sharing(self) -> bool:
        examples = [Example((1, 2, 3, *rest), 4) for rest in ((4, 5, 6), (5, 6, 4, 7))]
        alone = torch.cat([self(batch_of([Pack((e,), 0)], self._model.device)) for e in examples])
        packed = batch_of([Pack(tuple(examples), 3)], self._model.device)
        try:
            together = self(packed)
        except (RuntimeError, TypeError, ValueError):
            return False
        # A model that ignores masks and positions reads the row as one sequence. Rounding errors are far smaller than
        # that difference in any format.
        ignored = self(replace(packed, sequences=replace(packed.sequences, sees=None, places=None)))
        error, wrong = ((found - alone).abs().max() for found in (together, ignored))
        return bool(error <= max(1e-3, float(wrong) / 4))


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed sequences, with the positions at which their counted tokens are predicted."""

    sequences: Rows
    rows: Tensor
    """(counted,) int64, the row of each counted token."""
    positions: Tensor
    """(counted,) int64, the index in the row at which it is predicted."""
    targets: Tensor
    """(counted,) int64, the counted tokens themselves."""
    weights: Tensor
    """(counted,) float32, the weight of each counted token in the loss."""

    @property
    def ids(self) -> Tensor:
        """(rows, width) int64 token IDs."""
        return self.sequences.ids

    @property
    def examples(self) -> list[Example]:
        """The sequences, in the order of the counted tokens."""
        return [e for pack in self.sequences.packs for e in pack.examples]


def given_of(batch: Batch) -> dict[str, Any]:
    """Return the decoder's arguments for whole sequences."""
    given: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
    if batch.sequences.sees is not None and batch.sequences.places is not None:
        given |= {"attention_mask": batch.sequences.sees, "position_ids": batch.sequences.places}
    return given


def batch_of(packs: Sequence[Pack], device: torch.device, *, pad: int = 0, weights: Sequence[float] = ()) -> Batch:
    """Batch the packs; `weights[i]` is the weight of each counted token of pack `i`, 1 if none are given."""
    rows, positions, targets, shares = [], [], [], []
    for i, pack in enumerate(packs):
        for start, example in zip(pack.starts, pack.examples, strict=True):
            first = start + example.counted_from - pack.prefix - 1
            rows.append(torch.full((example.counted,), i))
            positions.append(torch.arange(first, first + example.counted))
            targets.append(torch.tensor(example.ids[example.counted_from :]))
            shares.append(torch.full((example.counted,), weights[i] if weights else 1.0))
    at, places, tokens, weight = (torch.cat(parts).to(device) for parts in (rows, positions, targets, shares))
    return Batch(rows_of(packs, pad, device), at, places, tokens, weight)


def losses_of(logits: Tensor, batch: Batch) -> Tensor:
    """Return (counted,) weighted losses: divergence from the teacher if a sequence has one, otherwise cross-entropy.

    Args:
        logits: (counted, vocabulary) float32 logits of the batch.
        batch: The batch they were computed for.
    """
    return losses_at(logits, batch.targets, batch.examples) * batch.weights


def losses_at(logits: Tensor, targets: Tensor, examples: Sequence[Example], columns: Tensor | None = None) -> Tensor:
    """Return (counted,) losses of some sequences.

    Args:
        logits: (counted, columns) float32 logits.
        targets: (counted,) the counted tokens.
        examples: The sequences, in the order of the logits.
        columns: (vocabulary,) int64, the column of each token in the logits; None if that is its ID.
    """
    counts = [e.counted for e in examples]
    parts = logits.split(counts)
    of_told = (targets if columns is None else columns[targets]).split(counts)
    told = [i for i, e in enumerate(examples) if e.teacher is None]
    taught = [(i, e.teacher) for i, e in enumerate(examples) if e.teacher is not None]
    losses: list[Tensor] = [logits.new_empty(0)] * len(parts)
    if told:
        found = functional.cross_entropy(
            torch.cat([parts[i] for i in told]), torch.cat([of_told[i] for i in told]), reduction="none"
        )
        for i, loss in zip(told, found.split([len(parts[i]) for i in told]), strict=True):
            losses[i] = loss
    if taught:
        ids = torch.cat([t.ids for _, t in taught]).to(logits.device)
        logprobs = torch.cat([t.logprobs for _, t in taught]).to(logits.device)
        found = divergence(torch.cat([parts[i] for i, _ in taught]), ids if columns is None else columns[ids], logprobs)
        for (i, _), loss in zip(taught, found.split([len(parts[i]) for i, _ in taught]), strict=True):
            losses[i] = loss
    return torch.cat(losses)


def divergence(logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """Return KL(teacher || student) over the teacher's most likely tokens and one outcome for all others.

        sum_v p_T(v) (log p_T(v) - log p_S(v)) + r_T (log r_T - log r_S),    r = 1 - sum_v p(v)

    Args:
        logits: (n, vocabulary) logits of the student.
        ids: (n, top) most likely tokens of the teacher.
        logprobs: (n, top) float32, the teacher's log-probabilities of these tokens.

    Returns:
        (n,) values in nats: at most the divergence over the whole vocabulary, and 0 exactly where teacher and student
        agree on these outcomes.
    """
    log_z = logits.logsumexp(-1, keepdim=True)
    found = logits.gather(1, ids) - log_z
    named = (logprobs.exp() * (logprobs - found)).sum(-1)
    tiny = 1e-6
    rest_teacher = (1 - logprobs.exp().sum(-1)).clamp_min(tiny)
    rest_student = (1 - found.exp().sum(-1)).clamp_min(tiny)
    return named + rest_teacher * (rest_teacher.log() - rest_student.log())
