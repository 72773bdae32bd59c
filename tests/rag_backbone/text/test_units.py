"""Sentences, words and alignment, on examples and on arbitrary text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import (
    Span,
    content_words,
    first_sentence_end,
    sentences,
    stop_words,
    token_spans,
    words,
    words_of_tokens,
)

TEXTS = st.text(st.sampled_from('ab. ?!\n"(A1é東ש\u202e\u0000'), max_size=60)


def cut(text, spans):
    return [text[s.start : s.end] for s in spans]


def test_abbreviations_and_initials_do_not_end_sentences():
    text = "Dr. Orr moved to Washington, D.C. and met J. R. R. Tolkien at 3 p.m. yesterday. Then he left."
    assert cut(text, sentences(text)) == [
        "Dr. Orr moved to Washington, D.C. and met J. R. R. Tolkien at 3 p.m. yesterday. ",
        "Then he left.",
    ]


def test_a_line_break_ends_a_sentence():
    assert cut("One\nTwo three.\n\nFour", sentences("One\nTwo three.\n\nFour")) == ["One\n", "Two three.\n\n", "Four"]


@given(TEXTS)
def test_sentences_cover_the_text(text):
    spans = sentences(text)
    assert "".join(cut(text, spans)) == text
    assert all(s.end > s.start for s in spans)


def stream_end(text):
    """Return where the first sentence ends, as found while the text grows, and how much of the text had arrived."""
    for i in range(1, len(text) + 1):
        end = first_sentence_end(text[:i])
        if end is not None:
            return end, i
    return None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("He came from D.C. and stayed. Nobody knew.", "He came from D.C. and stayed. "),
        ("The ferry (cf. Doll et al. on ferries) sails. It is old.", "The ferry (cf. Doll et al. on ferries) sails. "),
        ('She said "No. Never. Not at all." and left. Why?', 'She said "No. Never. Not at all." and left. '),
        ("\n\nFirst line\nsecond", "\n\nFirst line\n"),
    ],
)
def test_the_end_of_the_first_sentence_is_found_while_the_text_grows(text, first):
    end, _ = stream_end(text)
    assert text[:end] == first


def test_an_unfinished_sentence_has_no_end():
    assert first_sentence_end("The author is J. R") is None
    assert first_sentence_end("It sank in 1921.") is None
    assert first_sentence_end("It sank in 1921. T") is None
    assert first_sentence_end("It sank in 1921. The ") == len("It sank in 1921. ")
    assert first_sentence_end("  \n") is None


def test_an_open_bracket_does_not_delay_the_end_forever():
    text = "A list (as follows. " + "Word after word goes on and on here, with no end at all in sight. "
    assert stream_end(text) is not None


@given(TEXTS)
def test_words_are_found_in_order_and_without_white_space(text):
    spans = words(text)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(not any(c.isspace() for c in w) and w for w in cut(text, spans))


def test_words_keep_their_inner_punctuation():
    text = "O'Brien's mother-in-law paid 1,000.50 in the U.S., he said."
    assert cut(text, words(text)) == "O'Brien's mother-in-law paid 1,000.50 in the U.S he said".split()


def test_content_words_exclude_function_words_or_follow_a_custom_filter():
    text = "The keeper wasn't at the lighthouse."
    assert cut(text, content_words(text)) == ["keeper", "lighthouse"]
    assert cut(text, content_words(text, lambda ws: [w == "at" for w in ws])) == ["at"]


def test_stop_words_of_an_unknown_language_are_refused():
    assert "und" in stop_words("de")
    with pytest.raises(ConfigurationError, match="'xx'.*en"):
        stop_words("xx")


@given(st.lists(st.text("ab ,.", max_size=3), max_size=20))
def test_tokens_belong_to_the_word_that_they_overlap(pieces):
    text = "".join(pieces)
    of = words(text)
    for token, word in zip(token_spans(pieces), words_of_tokens(token_spans(pieces), of), strict=True):
        end = max(token.end, token.start + 1)
        overlapping = [i for i, w in enumerate(of) if w.start < end and w.end > token.start]
        assert word == (overlapping[0] if overlapping else None)


def test_pieces_of_a_word_map_to_one_word():
    pieces = [" Pál", " Gá", "b", "or", "'s", " film", "."]
    of = words("".join(pieces))
    assert words_of_tokens(token_spans(pieces), of) == [0, 1, 1, 1, 1, 2, None]
    assert token_spans(["", "é"]) == [Span(0, 0), Span(0, 1)]


def test_half_a_surrogate_pair_is_part_of_its_sentence():
    assert sentences("\ud800") == [Span(0, 1)]
    assert sentences("One \udc00. Two.") == [Span(0, 7), Span(7, 11)]
