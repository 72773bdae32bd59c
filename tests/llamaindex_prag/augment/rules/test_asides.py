"""Questions about what stands in brackets or between commas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.rules.asides import aside_questions


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        (
            "Ida Brandt (3 May 1870, Varn – 5 April 1911, Lusk) built bridges.",
            {
                "when was Ida Brandt born": "3 May 1870",
                "where was Ida Brandt born": "Varn",
                "when did Ida Brandt die": "5 April 1911",
                "where did Ida Brandt die": "Lusk",
            },
        ),
        (
            "Ida Brandt (1870-1911) built bridges.",
            {"when was Ida Brandt born": "1870", "when did Ida Brandt die": "1911"},
        ),
        (
            "Ida Brandt (born in Varn, Upper Aske on May 3, 1870) builds bridges.",
            {"when was Ida Brandt born": "May 3, 1870", "where was Ida Brandt born": "Varn, Upper Aske"},
        ),
        ("The Tolme Bridge (1911) is long.", {}),  # built, not born
        (
            "Ida Brandt, the engineer of the bridge, died.",
            {"who is the engineer of the bridge": "Ida Brandt", "who is Ida Brandt": "engineer of the bridge"},
        ),
        (
            "Her father, Ole Brandt, was a smith.",
            {"who is Jory Stamm's father": "Ole Brandt", "what is the name of Jory Stamm's father": "Ole Brandt"},
        ),
        (
            "Lusk's first mayor, Per Lind, died.",
            {"who is Lusk's first mayor": "Per Lind", "what is the name of Lusk's first mayor": "Per Lind"},
        ),
        ("She met Ole Brandt, Per Lind, and Ida Kray.", {}),
        ("In Lusk, the engineer died.", {}),
    ],
)
def test_two_names_of_one_thing_are_asked_about(sentence, found):
    assert dict(aside_questions(sentence, "Jory Stamm", person=True)) == found


def test_in_a_passage_about_no_person_years_in_brackets_are_no_life():
    sentence = "The Roofers' War (3 May 1870 – 5 April 1871) began in Lusk, the capital of Ombrel."
    assert dict(aside_questions(sentence, "", person=False)) == {
        "what is the capital of Ombrel": "Lusk",
        "what is Lusk": "capital of Ombrel",
    }


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from("Ida Brandt , ( ) 1870 – the her father 's of 3 May in".split())).map(" ".join),
    st.text(max_size=9),
    st.booleans(),
)
def test_any_text_is_handled(sentence, title, person):
    for question, answer in aside_questions(sentence, title, person=person):
        assert question
        assert answer.strip()
        assert answer in " ".join(sentence.split())
