"""One generation in progress: its generated tokens, the tokens still to be fed, and when to stop."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from rag_backbone.engine.adapters import SequenceAdapters
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.requests import FinishReason, Generation, Request, TokenCounts
from rag_backbone.engine.sampling import Sampler
from rag_backbone.engine.signals import NextToken, TokenStep
from rag_backbone.engine.stop_strings import Detokenizer, StopStrings

if TYPE_CHECKING:
    from threading import Thread

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class SequenceState:
    """The state of one generation. The engine advances it; it never calls the model itself."""

    def __init__(
        self,
        request: Request,
        prompt_ids: list[int],
        limit: int,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: frozenset[int],
        device: torch.device,
    ) -> None:
        self.request = request
        self.prompt_ids = prompt_ids
        self.adapters = SequenceAdapters.of(request.adapters, len(prompt_ids), request.answer_from)
        self.limit = limit
        """Maximum number of generated tokens: the requested number, or what the context window leaves."""
        self.sequence: SequenceCache | None = None
        self.generated: list[int] = []
        self.steps: list[TokenStep] = []
        """Steps that are final; steps held back for a possible stop string are not included."""
        self.finish_reason: FinishReason | None = None
        self.closing_attention: Tensor | None = None
        """The attention row of the last step's token, if that token has been fed."""
        self.counts = TokenCounts()
        self.chosen: TokenStep | None = None
        """The next token, still without its text, from when the model thread chooses it until the caller takes it."""
        self.thread: Thread | None = None
        """The thread that requested the latest token."""
        self.left_at = 0.0
        """Monotonic time at which the latest token was handed over."""
        self.missed_batch = False
        """Set when a batch timed out waiting for this sequence; cleared when it next joins a batch."""
        self._end_ids = end_ids
        self._detokenizer = Detokenizer(tokenizer, prompt_ids)
        self._stops = StopStrings(request.stop)
        self._sampler = Sampler(request.sampling, str(device))
        watched = request.signals.tokens
        self._watched = torch.tensor(watched, device=device) if watched else None

    def unfed(self) -> list[int]:
        """Return the ids to feed in the next forward pass."""
        assert self.sequence is not None
        fed = len(self.sequence.ids)
        ahead = fed - len(self.prompt_ids)
        return self.generated[ahead:] if ahead >= 0 else self.prompt_ids[fed:] + self.generated

    @property
    def key(self) -> Hashable:
        """Key of the sequence's keys and values."""
        return self.adapters.key

    @property
    def scheduled(self) -> list[SequenceState]:
        """The sequences that have to be advanced for the next token."""
        return [self]

    @property
    def parts(self) -> list[SequenceState]:
        """Everything that is released when this generation ends."""
        return [self]

    @property
    def shares_prefill(self) -> bool:
        """Whether its prompt is still to be prefilled and can be batched with other prompts."""
        return self.sequence is None and self.finish_reason is None and self.request.signals.hidden_state is None

    @property
    def decodes(self) -> bool:
        """Whether its next forward pass takes a single generated token, so that it can join a decode batch."""
        return self.sequence is not None and self.sequence.can_roll_back and len(self.unfed()) == 1

    def choose(self, logits: Tensor, following: NextToken, attention: Tensor | None, hidden: Tensor | None) -> None:
        """Choose the next token from (vocabulary,) float32 logits; runs in the model thread."""
        log_z, token_id, logit = following.log_z, following.likeliest, following.largest
        if not self._sampler.takes_likeliest:
            token = self._sampler(logits)
            chosen, logit = torch.stack((token.double(), logits[token].double())).tolist()  # one transfer
            token_id = int(chosen)
        top: tuple[tuple[int, float], ...] = ()
        if wanted := self.request.signals.top_logprobs:
            best = torch.topk(logits, min(wanted, logits.shape[0]))
            likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            top = tuple((i, value - log_z) for i, value in likeliest)
        watched: tuple[float, ...] = ()
        if self._watched is not None:
            watched = tuple(value - log_z for value in logits[self._watched].tolist())
        entropy = following.entropy if self.request.signals.entropy else None
        index, logprob = len(self.generated), logit - log_z
        self.chosen = TokenStep(index, token_id, "", logprob, entropy, top, attention, hidden, watched)

    def take(self) -> None:
        """Apply the chosen token with its signals; runs in the caller's thread, where `stop_when` is called."""
        chosen, self.chosen = self.chosen, None
        if chosen is None or self.finish_reason is not None:  # cancelled in the meantime
            return
        if chosen.token_id in self._end_ids:
            self._finish("eos", chosen.attention)
            return
        step = replace(chosen, text=self._detokenizer.push(chosen.token_id))
        self._sampler.accept(chosen.token_id)
        self.generated.append(chosen.token_id)
        self.counts += TokenCounts(generated_tokens=1)
        certain = self._stops.push(step)
        enough = self._first_enough(certain)
        self.steps += certain[:enough]
        if enough is not None:
            self._stops.flush()  # the steps held back come after the final one
            self._finish("cancelled", None)
        elif self._stops.found is not None:
            cut_off = step if len(self.steps) == step.index else None
            self._finish("stop", cut_off.attention if cut_off is not None else None)
        elif self._sampler.complete:
            self._finish("eos", None)
        elif len(self.generated) >= self.limit:
            self._finish("length", None)

    def _first_enough(self, steps: list[TokenStep]) -> int | None:
        """Return how many steps to keep, up to the first one at which `stop_when` is true; None if there is none."""
        stop_when = self.request.stop_when
        if stop_when is None:
            return None
        return next((i for i, step in enumerate(steps, 1) if stop_when(step)), None)

    def cancel(self) -> None:
        """Stop generating here, unless the sequence has already finished."""
        if self.finish_reason is None:
            self._finish("cancelled", None)

    def _finish(self, reason: FinishReason, closing_attention: Tensor | None) -> None:
        self.steps += self._stops.flush() if self._stops.found is None else []
        self.finish_reason = reason
        self.closing_attention = closing_attention

    def generation(self) -> Generation:
        """Return the result so far."""
        return Generation(
            text="".join(step.text for step in self.steps),
            steps=tuple(self.steps),
            finish_reason=self.finish_reason or "cancelled",
            prompt_tokens=len(self.prompt_ids),
            counts=self.counts,
            stop_string=self._stops.found,
        )
