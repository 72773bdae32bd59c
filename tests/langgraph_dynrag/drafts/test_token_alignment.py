"""Tokens are aligned with the text that they stand for."""

import random

from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.token_alignment import TokenTexts
from tests.tiny import tiny_tokenizer


def laid(chunks):
    texts, found = TokenTexts(), []
    for tokens, text in chunks:
        found += texts.push(list(tokens), text)
    return found + texts.finish(), texts.unclaimed


def test_tokens_equal_to_the_text_keep_their_text():
    chunks = [([("The", 0)], "The"), ([(" cat", 1), (" sat", 2)], " cat sat")]
    assert laid(chunks) == ([("The", 0), (" cat", 1), (" sat", 2)], "")


def test_end_of_sequence_tokens_and_stop_strings_get_no_text():
    assert laid([([("Yes", 0)], "Yes"), ([("<|im_end|>", 1)], "")]) == ([("Yes", 0)], "")
    assert laid([([("Yes", 0)], "Yes"), ([(".\n", 1)], ".")]) == ([("Yes", 0), (".", 1)], "")


def test_delayed_text_is_assigned_to_its_tokens():
    chunks = [([("The", 0)], ""), ([(" cat", 1)], "The c"), ([(" sat", 2)], "at s"), ([], "at")]
    assert laid(chunks) == ([("The", 0), (" cat", 1), (" sat", 2)], "")


def test_a_character_split_across_tokens_belongs_to_the_token_that_completes_it():
    chunks = [([("�", 0)], ""), ([("�", 1)], "é"), ([(" is", 2)], " is")]
    assert laid(chunks) == ([("", 0), ("é", 1), (" is", 2)], "")


@given(st.text(alphabet="aé東😀 .\n", min_size=1, max_size=40), st.integers(0, 10**6))
def test_no_character_is_lost_or_duplicated_however_the_text_is_split(text, seed):
    tokenizer, chance = tiny_tokenizer(), random.Random(seed)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    shown = [(tokenizer.decode([i]), n) for n, i in enumerate(ids)]
    chunks, given_text, at = [], 0, 0
    while at < len(shown):
        step = chance.randint(1, 3)
        until = chance.randint(given_text, len(text)) if at + step < len(shown) else len(text)
        chunks.append((shown[at : at + step], text[given_text:until]))
        at, given_text = at + step, until
    found, unclaimed = laid(chunks)
    assert "".join(piece for piece, _ in found) + unclaimed == text
    assert [n for _, n in found] == sorted({n for _, n in found})
