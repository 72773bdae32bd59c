"""Reads each prompt once, for adapters that act from the answer on.

Such adapters never change what the model computes for a prompt, whatever the document and the training step. Its keys
and values are kept, and so are the hidden states of the answer below the first adapted layer. Training then runs over
the answer's tokens only, in the adapted layers and those above:

    once        prompt and answer -> keys and values of the prompt, hidden states of the answer
    each step   hidden states of the answer, with the prompt's keys and values before them -> logits

Answers are short and differ in length, so all answers of a document share a row: each attends to the keys of its own
prompt and to itself. Losses and gradients are those of a pass over the whole sequence. Knows nothing of losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache

from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.lower_layers import LowerLayers
from llamaindex_prag.training.objective import Batch, CountedLogits, batch_of
from llamaindex_prag.training.packs import Pack, Rows, rows_of, segments_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class PromptState:
    """What the base model computes for a sequence before its adapters act."""

    states: Tensor
    """(2 * layers, prompt, kv_heads, dim), the keys and then the values of the prompt in each layer from the first
    adapted one on."""
    below: Tensor | None
    """(answer, hidden), the output of the layers below at the remaining tokens; None if there are no layers below."""
    last: Tensor
    """(counted, hidden), what the base model's output layer reads to predict the counted tokens."""


def answer_of(example: Example) -> Example:
    """Return the part of a sequence on which adapters act: from the token that predicts the first counted one."""
    return replace(example, ids=example.ids[example.counted_from - 1 :], counted_from=1)


def answer_rows(answers: Sequence[Example], limit: int) -> list[Pack]:
    """Put a document's answers (`answer_of`) into rows of at most `limit` tokens, or of a single answer."""
    rows: list[Pack] = []
    for answer in answers:
        if rows and rows[-1].width + len(answer.ids) <= limit:
            rows[-1] = Pack((*rows[-1].examples, answer), 0)
        else:
            rows.append(Pack((answer,), 0))
    return rows


class PromptStates:
    """Computes prompt states, and the logits of answers after them.

    Args:
        model: The base model; it is not changed.
        lower: The layers below the first adapted one.
        logits: Computes logits of counted tokens.
    """

    def __init__(self, model: PreTrainedModel, lower: LowerLayers, logits: CountedLogits) -> None:
        self._decoder = model.get_decoder()
        self._lower = lower
        self._logits = logits
        self.usable = self._tried(model)
        """Whether the model can continue from given keys and values; otherwise whole sequences have to be run."""

    @torch.no_grad()
    def read(self, rows: Rows) -> list[PromptState]:
        """Run whole sequences through the base model, and return the state of each, in order."""
        hidden: list[Tensor] = []
        cache = DynamicCache()
        first = self._decoder.layers[self._lower.count]
        handle = first.register_forward_pre_hook(lambda _, given: hidden.append(given[0]))
        try:
            output = self._decoder(
                rows.ids, attention_mask=rows.sees, position_ids=rows.places, past_key_values=cache, use_cache=True
            )
        finally:
            handle.remove()
        layers = cache.layers[self._lower.count :]
        kept = [layer.keys for layer in layers] + [layer.values for layer in layers]
        together = torch.stack([states.transpose(1, 2) for states in kept], 2)  # (rows, width, 2 layers, kv_heads, dim)
        examples = [e for pack in rows.packs for e in pack.examples]
        found = []
        parts = [rows.part(values) for values in (together, hidden[0], output.last_hidden_state)]
        for example, states, below, last in zip(examples, *parts, strict=True):
            at = example.counted_from - 1
            # Cloned, so that the padded batch is freed.
            prompt = states[:at].transpose(0, 1).clone()
            rest = below[at:].clone() if self._lower.count else None
            found.append(PromptState(prompt, rest, last[at:-1].clone()))
        return found

    def __call__(self, batch: Batch, states: Sequence[PromptState]) -> Tensor:
        """Return (counted, vocabulary) float32 logits.

        Args:
            batch: The answers, in rows of `answer_rows`.
            states: The state of each answer, in order.
        """
        with self.resumed(batch, states) as given:
            return self._logits.run(batch, given)

    @contextlib.contextmanager
    def resumed(self, batch: Batch, states: Sequence[PromptState]) -> Iterator[dict[str, Any]]:
        """Yield the decoder's arguments, in a context in which it resumes above the lower layers."""
        rows = batch.sequences
        of = iter(states)
        by_row = [[next(of) for _ in pack.examples] for pack in rows.packs]
        prompts = [torch.cat([state.states for state in row], 1) for row in by_row]
        kinds, _, heads, dim = prompts[0].shape
        longest = max(prompt.shape[1] for prompt in prompts)
        padded = prompts[0].new_zeros(len(prompts), kinds, longest, heads, dim)
        owners = torch.full((len(prompts), longest), -2)  # the number of each key's answer in its row
        segments = segments_of(rows.packs)
        places = segments.new_zeros(segments.shape)
        for i, (row, pack) in enumerate(zip(by_row, rows.packs, strict=True)):
            lengths = torch.tensor([state.states.shape[1] for state in row])
            padded[i, :, longest - prompts[i].shape[1] :] = prompts[i]
            owners[i, longest - prompts[i].shape[1] :] = torch.repeat_interleave(torch.arange(len(row)) + 1, lengths)
            for start, example, length in zip(pack.starts, pack.examples, lengths.tolist(), strict=True):
                places[i, start : start + len(example.ids)] = torch.arange(length, length + len(example.ids))
        own = segments[:, :, None] == owners[:, None, :]
        among = (segments[:, :, None] == segments[:, None, :]).tril_()
        cache = DynamicCache()
        for i in range(kinds // 2):
            keys, values = padded[:, i].transpose(1, 2), padded[:, kinds // 2 + i].transpose(1, 2)
            cache.update(keys, values, self._lower.count + i)
        below = rows.joined([s.below for s in states if s.below is not None]) if self._lower.count else None
        device = batch.ids.device
        with self._lower.given(below):
            yield {
                "input_ids": batch.ids,
                "attention_mask": torch.cat([own, among], 2)[:, None].to(device),
                "position_ids": places.to(device),
                "past_key_values": cache,
                "use_cache": True,
            }

    @torch.no_grad()
    def _tried(self, model: PreTrainedModel) -> bool:
        """Compare three answers, two in one row, with whole sequences; a family of models may do otherwise."""
        examples = [Example((1, 2, 3, 4, 5, 6), 4), Example((2, 3, 4, 5), 2), Example((3, 4, 5), 1)]
        whole = [batch_of([Pack((e,), 0)], model.device) for e in examples]
        expected = torch.cat([self._logits(batch) for batch in whole])
        try:
            states = [state for e in examples for state in self.read(rows_of([Pack((e,), 0)], 0, model.device))]
            answers = [answer_of(e) for e in examples]
            found = self(batch_of([Pack(tuple(answers[:2]), 0), Pack((answers[2],), 0)], model.device), states)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return False
        return bool(torch.allclose(found, expected, atol=1e-2, rtol=1e-2))
