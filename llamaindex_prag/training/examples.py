"""What a document's adapter is trained on: token sequences with the positions that count.

`prag` (Su et al. 2025, section 3.2): with questions 1 and 2, each once with the passage and once with its rewrite in
the prompt, then question 3 without either; the loss is on every token, the prompt's included, and no end of sequence is
learnt. In this order, never shuffled.
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
    """What a teacher thinks of each counted token's place: its likeliest tokens."""

    ids: Tensor
    """(counted, top) int64."""
    logprobs: Tensor
    """(counted, top) float32; what is left of the probability is one further outcome."""
    sees_more: bool = True
    """Than the student. Where both see the same, a student without an update already says the same."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence to train on."""

    ids: tuple[int, ...]
    counted_from: int
    """The loss is on `ids[counted_from:]`; at least 1, because nothing predicts the first token."""
    teacher: Teacher | None = None
    """None: the tokens themselves are the target."""

    def __post_init__(self) -> None:
        if not 1 <= self.counted_from < len(self.ids):
            raise ConfigurationError(
                f"counted_from is {self.counted_from} of {len(self.ids)} tokens; at least one token has to count, "
                "and the first cannot"
            )

    @property
    def counted(self) -> int:
        """Number of tokens that count."""
        return len(self.ids) - self.counted_from

    @property
    def keeps(self) -> bool:
        """Whether it only holds the model where it was: nothing is learnt from it before something else changed."""
        return self.teacher is not None and not self.teacher.sees_more


@dataclass(frozen=True, slots=True)
class TrainingDocument:
    """A document's training sequences, in the order in which they are seen."""

    text: str
    """The passage; its hash names the adapter."""
    examples: tuple[Example, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(len(e.ids) for e in self.examples)


def prag_examples(
    tokenizer: PreTrainedTokenizerBase, text: str, rewrite: str | None, qas: Sequence[QA]
) -> tuple[Example, ...]:
    """The five sequences of PRAG; fewer if there are fewer questions, the passage itself if there are none."""
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
