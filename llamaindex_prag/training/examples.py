"""The training data of a document's adapter: token sequences and the positions that enter the loss.

`prag` (Su et al. 2025, section 3.2) uses five sequences in a fixed order, never shuffled: questions 1 and 2, each once
with the passage and once with its rewrite in the prompt, then question 3 without either. The loss covers every token
including the prompt, and no end of sequence is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.prompts import answer_ids, prompt_ids
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.special_tokens import neutralised

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher's distributions at the counted tokens, truncated to its most likely tokens."""

    ids: Tensor
    """(counted, top) int64."""
    logprobs: Tensor
    """(counted, top) float32; the remaining probability mass is treated as one further outcome."""
    sees_more: bool = True
    """Whether the teacher sees more than the student. If not, an untrained student already agrees with it."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence to train on."""

    ids: tuple[int, ...]
    counted_from: int
    """The loss is on `ids[counted_from:]`; at least 1, because nothing predicts the first token."""
    teacher: Teacher | None = None
    """Target distributions; None if the tokens themselves are the target."""

    def __post_init__(self) -> None:
        if not 1 <= self.counted_from < len(self.ids):
            raise ConfigurationError(
                f"counted_from is {self.counted_from} in a sequence of {len(self.ids)} tokens; at least one token must "
                "count, and the first cannot"
            )

    @property
    def counted(self) -> int:
        """Number of tokens that count."""
        return len(self.ids) - self.counted_from

    @property
    def keeps(self) -> bool:
        """Whether it only preserves the model, so nothing is learnt from it until other examples change the model."""
        return self.teacher is not None and not self.teacher.sees_more


@dataclass(frozen=True, slots=True)
class TrainingDocument:
    """A document's training sequences, in training order."""

    text: str
    """The passage; its hash names the adapter."""
    examples: tuple[Example, ...]
    left_out: int = 0
    """Number of questions by rule that were left out as inconsistent (`Recipe.consistency`)."""

    @property
    def tokens(self) -> int:
        """Total number of tokens in all sequences."""
        return sum(len(e.ids) for e in self.examples)


def prag_examples(
    tokenizer: PreTrainedTokenizerBase, text: str, rewrite: str | None, qas: Sequence[QA]
) -> tuple[Example, ...]:
    """Build PRAG's five sequences; fewer if there are fewer questions, the passage itself if there are none."""
    passages = [text, *([rewrite] if rewrite else [])]
    if not qas:
        return tuple(_plain(list(tokenizer(neutralised(tokenizer, p)).input_ids)) for p in passages)
    found = [_told(tokenizer, qa.question, qa.answer, [p]) for qa in qas[:2] for p in passages]
    found += [_told(tokenizer, qa.question, qa.answer, []) for qa in qas[2:3]]
    return tuple(found)


def _told(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, passages: Sequence[str]) -> Example:
    prompt = prompt_ids(tokenizer, question, passages)
    return _plain(prompt + answer_ids(tokenizer, f"The answer is {answer.rstrip('.')}."))


def _plain(ids: list[int]) -> Example:
    return Example(tuple(ids), 1)
