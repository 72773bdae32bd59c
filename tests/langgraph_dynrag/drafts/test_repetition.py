"""Repetitions of the answer at the beginning of a reply are detected, and look-alikes are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.repetition import letters, repeated_characters

ONE = "The bridge was built by Aldous Wray."
TWO = f"{ONE} He was born in the village of Hallin."
PHRASE = "So the answer is"


def rest(written, reply, **options):
    return reply[repeated_characters(written, reply, **{"over": True, **options}) :]


@pytest.mark.parametrize(
    ("written", "reply", "left"),
    [
        # repeated: the whole text, the last sentence, an unfinished sentence, the last words
        (ONE, f"{ONE} He was born in Hallin.", " He was born in Hallin."),
        (TWO, "He was born in the village of Hallin. He died there.", " He died there."),
        (f"{ONE} He was", f"{ONE} He was born in Hallin.", " born in Hallin."),
        (f"{ONE} He was", "He was born in Hallin.", " born in Hallin."),
        ("He was born in the", "born in the village of Hallin.", " village of Hallin."),
        (ONE, ONE, ""),
        # with small differences
        (ONE, "the bridge  was built, by “ALDOUS Wray”.\nHe was born.", "\nHe was born."),
        (ONE, f"**{ONE}** He was born.", " He was born."),
        (TWO, f"{ONE} He was born in village Hallin. He died.", "He died."),
        (ONE, "The bridge was built by Aldous Wray, who was born in Hallin.", " who was born in Hallin."),
        ("Se\u0301verine l'a ba\u0302ti a\u0300 Paris.", "Séverine l’a bâti à Paris. Elle dort.", " Elle dort."),
        # after a lead-in addressed to the user
        (ONE, f"Sure! Continuing: {ONE} He was born.", " He was born."),
        (ONE, "Sure! Here is the continuation:\n\nHe was born.", "He was born."),
        (ONE, f"Gerne! Hier geht es weiter:\n\n{ONE} He was born.", " He was born."),
        # other scripts
        ("这座桥由雷建造。", "这座桥由雷建造。他死了。", "他死了。"),
        ("Мост построил Рей.", "мост построил Рей. Он умер.", " Он умер."),
    ],
)
def test_a_repetition_is_recognised(written, reply, left):
    assert rest(written, reply) == left


@pytest.mark.parametrize(
    ("written", "reply"),
    [
        (ONE, "He was born in Hallin."),
        (ONE, "The bridge was built in 1902."),
        ("No.", "No one lives there."),
        ("He lives in New York", "New York City is large."),  # a name
        ("She flew to Bora", "Bora Bora is an island."),
        ("1. Apples.", "2. Apples."),  # a list
        ("Hallin had 200 people in 1900.", "Hallin had 300 people in 1910."),
        (TWO, f"{ONE} She lived there."),  # a refrain
        ("The river ran.\nThe town slept well that night.\nPike paid.", "The town slept well that night.\nIt ends."),
        (TWO, f"{ONE} He was not born in the village of Hallin."),
        ("", ONE),
        (ONE, "Here is the list: apples, pears."),
        (ONE, "Sure enough, he was born in Hallin."),
    ],
)
def test_text_that_is_not_a_repetition_is_kept(written, reply):
    assert rest(written, reply) == reply


@pytest.mark.parametrize(
    ("written", "reply", "left"),
    [
        (f"{ONE} {PHRASE}", " Aldous Wray.", " Aldous Wray."),
        (f"{ONE} {PHRASE}", f"{ONE} {PHRASE} Aldous Wray.", " Aldous Wray."),
        (f"{ONE} {PHRASE}", f"It was he. {PHRASE} Wray.", " Wray."),
        (f"{ONE} {PHRASE}", "The answer is Wray.", " Wray."),
        (f"{ONE} {PHRASE}", ONE, ""),
        ("The Lord of the Rings was written by Tolkien. So the answer is",) + ("The Lord of the Rings.",) * 2,
        (f"{ONE} {PHRASE} Ald", "Aldous Wray.", "ous Wray."),
        (f"{ONE} {PHRASE} the", "the village of Hallin.", " village of Hallin."),
    ],
)
def test_a_requested_short_answer_is_kept_without_what_it_repeats(written, reply, left):
    assert rest(written, reply, phrase=PHRASE) == left


@given(
    st.lists(st.text(alphabet="abc é水", min_size=1, max_size=12), min_size=1, max_size=4),
    st.text(alphabet="abc .,\n", max_size=30),
    st.booleans(),
)
def test_only_a_prefix_of_the_reply_that_repeats_the_text_is_cut(parts, more, over):
    written = ". ".join(parts) + "."
    for reply in (f"{written} {more}", more):
        cut = repeated_characters(written, reply, over=over)
        assert cut is None or 0 <= cut <= len(reply)
        if cut is None:
            assert not over
        elif cut and letters(reply[:cut]).text:
            assert letters(reply[:cut]).text in letters(written).text or len(parts) > 1
