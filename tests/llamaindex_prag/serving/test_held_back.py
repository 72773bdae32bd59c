"""Text that a server held back when a stream broke is what the tokens decode to beyond the text that was sent."""

import pytest

from llamaindex_prag.serving.served_engine import held_back
from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import Detokenizer
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPT = TOKENIZER("Who?").input_ids


def steps_of(text, sent):
    """Make one step per token; the last one carries all the text that was sent."""
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    return [TokenStep(i, token, sent if i == len(ids) - 1 else "", -0.1) for i, token in enumerate(ids)]


@pytest.mark.parametrize("text", ["The bridge of Hallin.", "ein Städtchen", "naïve 東京"])
@pytest.mark.parametrize("characters", [0, 1, 5])
def test_the_rest_of_the_text_is_found(text, characters):
    sent = text[: len(text) - characters]
    assert held_back(TOKENIZER, PROMPT, steps_of(text, sent)) == text[len(sent) :]


def test_text_that_comes_with_each_token_leaves_nothing_behind():
    detokenizer = Detokenizer(TOKENIZER, PROMPT)
    steps = []
    for i, token in enumerate(TOKENIZER("naïve 😀 שלום", add_special_tokens=False).input_ids):
        steps.append(TokenStep(i, token, detokenizer.push(token), -0.1))
        assert held_back(TOKENIZER, PROMPT, steps) == ""
    assert not all(step.text for step in steps)  # some tokens are a part of a character


def test_text_that_the_tokens_do_not_decode_to_is_unknown():
    assert held_back(TOKENIZER, PROMPT, steps_of("The bridge.", "The river")) is None
    assert held_back(TOKENIZER, PROMPT, []) == ""
