"""Detect documents of one answer that contradict each other.

Each document's adapter answers the question alone; then each answer is scored under all adapters and under the base
model. With l_i(a) the log-probability of a whole answer, including its end, under adapter i (0: the base model), and
a_i the answer of adapter i:

    claim(i, j)    = l_i(a_i) - max(l_j(a_i), l_0(a_i))       what i says, and neither j nor the base model would
    overlap(i, j)  = <B_i A_i, B_j A_j> / norms               cosine of the updates as whole matrices
    conflict(i, j) = max(0, min(claim(i, j), claim(j, i)))    nats; 0 if both say the same, or hardly overlap

Two wordings of the same answer are no conflict, because each adapter finds the other's likely. A document that does not
cover the question should contradict none, but its adapter is trained to answer, and does so confidently. Claims alone
therefore cannot separate contradictions from irrelevance (docs/results-translator.md). The overlap can: it tells
whether two documents are about the same thing, from their updates and without a question.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.engine.requests import Generation, Request
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamaindex_prag.adapter_model import LocalModel
    from llamaindex_prag.adapters.active_adapters import ActiveAdapters
    from llamaindex_prag.adapters.adapter import AdapterKey
    from llamaindex_prag.adapters.layout import Layout


BOUND = 1.2
"""Nats. Calibrated, with `OVERLAP`, on ten altered passages of an invented corpus, with a 0.5B model and `distill`."""
OVERLAP = 0.16
"""Midway between the largest overlap of different passages there, and the smallest of two versions of a passage."""
_REMEMBERED = 256


@dataclass(frozen=True, slots=True, eq=False)
class Conflicts:
    """Answers of several documents to one question, and how much they contradict each other."""

    question: str
    keys: tuple[AdapterKey, ...]
    answers: tuple[str, ...]
    """Answer of each adapter alone; empty if no two documents are about the same thing, as none is queried then."""
    matrix: NDArray[np.float64]
    """(k, k) `conflict` in nats, symmetric, 0 on the diagonal."""
    bound: float
    """Two documents contradict each other above this many nats."""
    overlaps: NDArray[np.float64] | None = None
    """(k, k) cosines of the updates; None: not computed."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Index pairs of documents that contradict each other, the worst first."""
        k = len(self.keys)
        found = [(i, j) for i in range(k) for j in range(i + 1, k) if self.matrix[i, j] > self.bound]
        return sorted(found, key=lambda pair: -self.matrix[pair])

    @property
    def documents(self) -> list[int]:
        """Indices of the documents that contradict another one."""
        return sorted({i for pair in self.pairs for i in pair})

    def to_dict(self) -> dict[str, object]:
        """Return JSON-serialisable data for traces."""
        pairs = [
            {
                "documents": [self.keys[i].text, self.keys[j].text],
                "answers": [self.answers[i], self.answers[j]],
                "nats": round(float(self.matrix[i, j]), 3),
                "overlap": None if self.overlaps is None else round(float(self.overlaps[i, j]), 3),
            }
            for i, j in self.pairs
        ]
        return {"question": self.question, "bound": self.bound, "pairs": pairs}

    def __repr__(self) -> str:
        told = ", ".join(f"{self.answers[i]!r} / {self.answers[j]!r}" for i, j in self.pairs)
        return f"Conflicts({len(self.keys)} documents, {told or 'none'})"


class ConflictMeter:
    """Queries each document's adapter alone, and compares the answers.

    Costs one batch of short answers, and one forward pass for each distinct answer under each adapter.

    Args:
        model: The model with its adapters.
        bound: Two documents contradict each other above this many nats.
        least_overlap: Documents whose updates have a smaller cosine are about different things, and do not contradict
            each other. None: not checked.
        max_new_tokens: Token limit of an answer.

    Raises:
        ConfigurationError: If a number is out of range.
    """

    def __init__(
        self,
        model: LocalModel,
        *,
        bound: float = BOUND,
        least_overlap: float | None = OVERLAP,
        max_new_tokens: int = 24,
    ) -> None:
        if not (math.isfinite(bound) and bound > 0) or max_new_tokens < 1:
            raise ConfigurationError(
                f"bound is {bound} and max_new_tokens is {max_new_tokens}; bound must be above 0, the other at least 1"
            )
        if least_overlap is not None and not -1 <= least_overlap <= 1:
            raise ConfigurationError(f"least_overlap is {least_overlap}; a cosine lies between -1 and 1")
        self.model = model
        self.bound = bound
        self.least_overlap = least_overlap
        self._tokens = max_new_tokens
        self._lock = threading.Lock()
        self._measured: OrderedDict[Hashable, Conflicts] = OrderedDict()

    def measure(self, question: str, keys: Sequence[AdapterKey], *, strength: float = 1.0) -> Conflicts:
        """Measure what each document alone answers to a question; cached per question and documents.

        Args:
            question: The question.
            keys: The documents' adapters; duplicates count once.
            strength: Strength of each adapter.

        Raises:
            ConfigurationError: If the question is blank.
            AdapterMissingError: If an adapter is missing.
        """
        if not question.strip():
            raise ConfigurationError("the question is blank; documents can only contradict each other about something")
        keys = tuple(dict.fromkeys(keys))
        alone = [one for key in keys if (one := self.model.select([key], strength=strength)) is not None]
        about = (question, tuple(one.cache_key for one in alone))
        with self._lock:
            known = self._measured.get(about)
        if known is not None:
            return known
        found = self._measure(question, keys, alone)
        with self._lock:
            self._measured[about] = found
            while len(self._measured) > _REMEMBERED:
                self._measured.popitem(last=False)
        return found

    def _measure(self, question: str, keys: tuple[AdapterKey, ...], alone: Sequence[ActiveAdapters]) -> Conflicts:
        prompt = prompt_ids(self.model.lm.tokenizer, question)
        overlaps, alike = None, np.ones((len(keys), len(keys)), bool)
        if self.least_overlap is not None:
            overlaps = overlap(self.model.layout, list(self.model.bank.values(keys)))
            alike = overlaps >= self.least_overlap
        if not np.triu(alike, 1).any():  # the usual case: no adapter has to be queried
            return Conflicts(question, keys, ("",) * len(keys), np.zeros(alike.shape), self.bound, overlaps)
        said = self.model.lm.engine.generate_batch([Request(prompt, self._tokens, adapters=one) for one in alone])
        tokens = [self._with_end(found) for found in said]
        answers = tuple(clean_answer(found.text) for found in said)
        matrix = self._matrix(prompt, alone, tokens, answers, alike)
        return Conflicts(question, keys, answers, matrix, self.bound, overlaps)

    def _with_end(self, said: Generation) -> tuple[int, ...]:
        end = self.model.lm.tokenizer.eos_token_id
        return (*said.token_ids, *([end] if said.finish_reason == "eos" and end is not None else []))

    def _matrix(
        self,
        prompt: Sequence[int],
        alone: Sequence[ActiveAdapters],
        tokens: Sequence[tuple[int, ...]],
        answers: Sequence[str],
        alike: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        k = len(alone)
        matrix = np.zeros((k, k))
        pairs = [
            (i, j)
            for i in range(k)
            for j in range(i + 1, k)
            if alike[i, j] and tokens[i] and tokens[j] and answers[i].casefold() != answers[j].casefold()
        ]
        if not pairs:
            return matrix
        score = self.model.lm.engine.score
        likely = {
            (by, answer): float(score(prompt, answer, adapters=by).logprobs.sum())
            for by in (None, *alone)
            for answer in dict.fromkeys(tokens)
            if answer
        }

        def claim(i: int, j: int) -> float:
            others = max(likely[alone[j], tokens[i]], likely[None, tokens[i]])
            return likely[alone[i], tokens[i]] - others

        for i, j in pairs:
            matrix[i, j] = matrix[j, i] = max(0.0, min(claim(i, j), claim(j, i)))
        return matrix

    def __repr__(self) -> str:
        return f"ConflictMeter(bound={self.bound:g} nats)"


def overlap(layout: Layout, buffers: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the cosines of updates, taken as whole matrices over all layers.

        <B_i A_i, B_j A_j> = sum over both ranks of (B_i^T B_j) (A_i A_j^T)

    Args:
        layout: The layout of the adapters.
        buffers: (layout.size,) float32 each.

    Returns:
        (k, k), with 1 on the diagonal, and 0 where one of the updates is 0.
    """
    k = len(buffers)
    products = np.zeros((k, k))
    factors = [list(layout.factors(buffer)) for buffer in buffers]
    for i in range(k):
        for j in range(i, k):
            products[i, j] = products[j, i] = sum(
                float(((b1.T @ b2) * (a1 @ a2.T)).sum(dtype=np.float64))
                for (_, a1, b1), (_, a2, b2) in zip(factors[i], factors[j], strict=True)
            )
    norms = np.sqrt(np.maximum(products.diagonal(), 0))
    whole = np.outer(norms, norms)
    found: NDArray[np.float64] = np.divide(products, whole, out=np.zeros_like(products), where=whole > 0)
    return found
