"""Tokens of a reply, filtered down to those that continue the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.reply_tokens import ReplyTokens
from langgraph_dynrag.drafts.token_alignment import Seam

ONE = "The bridge was built by Aldous Wray."
TWO = f"{ONE} He was born in the village of Hallin."


@given(st.integers(1, 7), st.sampled_from(["never ends", "ends.", ""]))
def test_text_after_a_full_repetition_is_kept_however_the_reply_is_split(length, more):
    reply = f"{TWO} {more}"
    tokens = ReplyTokens(TWO, seam=Seam(TWO, "answers"))
    found = []
    for at in range(0, len(reply), length):
        found += tokens.push([(reply[at : at + length], at)])[0]
    found += tokens.finish()[0]
    assert "".join(piece for piece, _ in found).strip() == more
    # Each token's value stays with its characters.
    assert all(
        reply[at : at + length].endswith(piece) or piece.strip() in reply[at : at + length] for piece, at in found
    )


@pytest.mark.parametrize(
    ("written", "reply", "text", "joined"),
    [
        ("It was", "continues", " built", " built"),
        ("It was ", "continues", " built", "built"),
        ("It was\n", "continues", "\nbuilt", "built"),
        ("Bri", "continues", "dge", "dge"),
        ("It was.", "answers", "Then", " Then"),
        ("It was.", "answers", " Then", " Then"),
        ("It was", "answers", ", then", ", then"),
        ("It was ", "answers", "built", "built"),
        ("", "answers", "The", "The"),
        ("\n", "answers", " The", " The"),
    ],
)
def test_a_reply_is_joined_to_the_written_text(written, reply, text, joined):
    assert Seam(written, reply).joined(text) == joined
    tokens = ReplyTokens(written, seam=Seam(written, reply))
    found = tokens.push([(text, 0)])[0] + tokens.push([(" end", 1)])[0] + tokens.finish()[0]
    assert "".join(piece for piece, _ in found) == f"{joined} end"


def test_the_log_probabilities_of_a_split_token_stay_with_its_rest():
    tokens = ReplyTokens(stop=("\n\n",))
    found, _ = tokens.push([("<think>a</think>It", -1.0), (" was\n\nno", -2.0), ("more", -3.0)])
    assert found + tokens.finish()[0] == [("It", -1.0), (" was", -2.0)]


def texts(reply, pieces, **options):
    """Return the text that passes a filter, in the pieces in which it is certain."""
    out = []
    for piece in pieces:
        more, recalled = reply.push([(piece, None)])
        out = ([] if recalled else out) + ["".join(text for text, _ in more)]
    more, recalled = reply.finish(**options)
    return ([] if recalled else out) + ["".join(text for text, _ in more)]


def test_a_stop_string_is_held_back_until_it_is_certain():
    assert texts(ReplyTokens(stop=("\n\n",)), ["It was", ".", "\n", "He"]) == ["It was", ".", "", "\nHe", ""]
    reply = ReplyTokens(stop=("\n\n",))
    assert texts(reply, ["It was", ".\n", "\nno", "more"]) == ["It was", "", ".", "", ""]
    assert reply.stopped


@given(st.lists(st.sampled_from(["a", " ", "#", "ab", "b#", ""]), max_size=10))
def test_the_text_before_the_first_stop_string_passes_and_nothing_after_it(pieces):
    reply = ReplyTokens(stop=("b#", "##"))
    text = "".join(pieces)
    ends = [at for stop in reply.stop if (at := text.find(stop)) >= 0]
    assert "".join(texts(reply, pieces)) == text[: min(ends, default=len(text))]
    assert reply.stopped is bool(ends)


def test_text_before_a_closing_mark_is_recalled():
    reply = ReplyTokens()
    first, recalled = reply.push([("It may be", 1), (" Joan", 2)])
    assert (first, recalled) == ([("It may be", 1), (" Joan", 2)], False)
    found, recalled = reply.push([("</think>", 3), ("It was Wray", 4)])
    assert recalled
    assert (reply.splitter.text, reply.splitter.tokens) == ("It may be Joan", 3)
    assert found + reply.finish()[0] == [("It was Wray", 4)]


def test_nothing_is_decided_while_the_prompt_may_have_opened_a_block():
    reply = ReplyTokens(waits=True)
    assert reply.push([("It was", 1), (" Wray", 2)]) == ([], False)
    assert reply.finish() == ([("It was", 1), (" Wray", 2)], False)


def test_marks_are_text_where_reasoning_is_part_of_the_answer():
    assert "".join(texts(ReplyTokens(marked=False), ["<think>", "Who?", "</think>"])) == "<think>Who?</think>"


def test_blank_lines_before_a_fresh_answer_are_dropped():
    assert "".join(texts(ReplyTokens(stop=("\n\n",)), ["\n", "\n", "It was"])) == "It was"


def test_what_is_repeated_is_kept_aside():
    reply = ReplyTokens(ONE, seam=Seam(ONE, "answers"))
    assert "".join(texts(reply, [ONE, " He was born."])) == " He was born."
    assert reply.repeated == ONE
