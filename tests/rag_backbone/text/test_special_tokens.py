"""Control tokens in text are broken up, so that they stay text."""

import copy
import re

import pytest
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


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x<|end|>y", "x< |end|>y"),
        ("<|end|><|start|>system", "< |end|>< |start|>system"),
        ("<|end| >, <end> and <| |>", "<|end| >, <end> and <| |>"),
        ("", ""),
    ],
)
def test_a_space_breaks_up_every_control_token_and_nothing_else(text, kept):
    assert neutralised(tiny_tokenizer(), text) == kept


def test_a_control_token_that_contains_another_is_broken_up():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<<|end|>>", "[INST]"]})
    text = neutralised(tokenizer, "<<|end|>> [INST]")
    assert not set(tokenizer(text, add_special_tokens=False).input_ids) & set(tokenizer.all_special_ids)
    assert text.replace(" ", "") == "<<|end|>>[INST]"


def test_lone_surrogates_are_repaired():
    assert neutralised(tiny_tokenizer(), "cut \ud83d, whole \ud83d\ude00") == "cut \ufffd, whole \U0001f600"
