"""Control tokens in text are broken up, so that they stay text."""

import re

from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.text.special_tokens import neutralised
from tests.tiny import tiny_tokenizer


@given(st.lists(st.sampled_from(["<|start|>", "<|end|>", "<|pad|>", "<|", "|>", "a", " ", "\n"])).map("".join))
def test_text_never_becomes_a_control_token(text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(neutralised(tokenizer, text), add_special_tokens=False).input_ids
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert re.sub(r"\s", "", neutralised(tokenizer, text)) == re.sub(r"\s", "", text)
