"""Training sequences: what they contain, and which tokens count."""

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.prompts import (
    answer_ids,
    prompt_ids,
)
from llamaindex_prag.training.examples import prag_examples
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
