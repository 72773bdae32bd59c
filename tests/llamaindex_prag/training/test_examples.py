"""Training sequences: what they contain, and which tokens count."""

import pytest
import torch

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.examples import Example, Teacher, TrainingDocument, prag_examples
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_tokenizer


def test_prag_sequences_are_the_five_of_the_paper_in_order():
    tokenizer = tiny_tokenizer()
    qas = [QA(f"Who built bridge {i}?", f"engineer {i}") for i in range(4)]
    examples = prag_examples(tokenizer, "The passage.", "In other words.", qas)
    texts = [tokenizer.decode(e.ids) for e in examples]
    expected = [(0, "The passage."), (0, "In other words."), (1, "The passage."), (1, "In other words."), (2, None)]
    assert len(texts) == 5
    for text, (number, passage) in zip(texts, expected, strict=True):
        assert f"bridge {number}?" in text
        assert text.endswith(f"The answer is engineer {number}.")
        assert [p for p in ("The passage.", "In other words.") if p in text] == ([passage] if passage else [])
    assert all(e.counted_from == 1 for e in examples)  # the loss is on every token


def test_training_and_answering_use_the_same_tokens():
    tokenizer = tiny_tokenizer()
    qas = [QA("Who?", "nobody"), QA("When?", "never"), QA("Who built it?", "x")]
    last = prag_examples(tokenizer, "P", None, qas)[-1]
    assert list(last.ids) == prompt_ids(tokenizer, "Who built it?") + answer_ids(tokenizer, "The answer is x.")


@pytest.mark.parametrize("counted_from", [0, 3, 4, -1])
def test_at_least_one_token_counts_and_never_the_first(counted_from):
    with pytest.raises(ConfigurationError, match=f"counted_from is {counted_from} in a sequence of 3 tokens"):
        Example((5, 6, 7), counted_from)
    assert Example((5, 6, 7), 1).counted == 2


def test_only_a_teacher_that_sees_no_more_than_the_student_preserves_the_model():
    nothing = torch.zeros(1, 1)
    more, same = (Example((5, 6), 1, Teacher(nothing.long(), nothing, sees_more=s)) for s in (True, False))
    assert [e.keeps for e in (Example((5, 6), 1), more, same)] == [False, False, True]


def test_without_a_rewrite_or_questions_there_are_fewer_sequences():
    tokenizer = tiny_tokenizer()
    qas = [QA(f"Who built bridge {i}?", "x.") for i in range(3)]
    assert [len(prag_examples(tokenizer, "P.", None, qas[:n])) for n in (3, 2, 1)] == [3, 2, 1]
    found = prag_examples(tokenizer, "P <|end|>.", "R.", [])
    assert [tokenizer.decode(e.ids).replace(" ", "")[0] for e in found] == ["P", "R"]
    assert tokenizer.eos_token_id not in found[0].ids
    assert TrainingDocument("P.", found).tokens == sum(len(e.ids) for e in found)
    (told,) = prag_examples(tokenizer, "P.", None, qas[:1])
    assert tokenizer.decode(told.ids).endswith("The answer is x.")
