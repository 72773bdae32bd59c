"""Replies of language models, tidy and untidy, and arbitrary text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.qa_parsing import MAX_REPLY, parse_qas, read_qas

PAIRS = [("Who built the Harl Gate?", "Ume Stoll"), ("When did the Harl Gate open?", "1871")]


def pairs(reply, **options):
    return [(qa.question, qa.answer) for qa in parse_qas(reply, **options)]


@pytest.mark.parametrize(
    "reply",
    [
        (
            '[{"question": "Who built the Harl Gate?", "answer": "Ume Stoll"},'
            ' {"question": "When did the Harl Gate open?", "answer": "1871"}]'
        ),
        (
            'Sure, here they are:\n```json\n[{"question": "Who built the Harl Gate?", "answer": "Ume Stoll"},\n'
            '{"question": "When did the Harl Gate open?", "answer": 1871},]\n```\nAnything else?'
        ),
        (
            '[{"question": "Who built the Harl Gate?" "answer": "Ume Stoll"}\n'
            '{"question": "When did the Harl Gate open?", "answer": ["1871", "in 1871"]}]'
        ),
        (
            '{"question": "Who built the Harl Gate?", "answer": "Ume Stoll"}\n\n'
            '{"question": "When did the Harl Gate open?", "answer": "1871"}\n{"question": "Where is the Ha'
        ),
        (
            '[{"question": "Who built the Harl Gate?", "answer": "Ume Stoll"},'
            ' {"question": "When did the Harl Gate open?", "answer": "1871"},'
            ' {"question": "Who guards the Harl Gate?", "answer": "Old Br'
        ),
        (
            "[{'question': 'Who built the Harl Gate?', 'answer': 'Ume Stoll'},"
            " {'question': 'When did the Harl Gate open?', 'answer': '1871'}]"
        ),
        '{"Who built the Harl Gate?": "Ume Stoll", "When did the Harl Gate open?": "1871"}',
        (
            '{"qas": [{"Q": "Who built the Harl Gate?", "A": "Ume Stoll",},'
            ' {"Q": "When did the Harl Gate open?", "A": "1871"'
        ),
        "Q: Who built the Harl Gate?\nA: Ume Stoll\n\nQ: When did the Harl Gate open?\nA: 1871.",
        "Q: Who built the Harl Gate? A: Ume Stoll Q: When did the Harl Gate open? A: 1871",
        (
            "Question 1: Who built the Harl Gate?\nAnswer: Ume Stoll\n"
            "Question 2: When did the Harl Gate open?\nAnswer: 1871"
        ),
        (
            "**Question 1:** Who built the Harl Gate?\n**Answer:** Ume Stoll\n\n**Q2.** When did the Harl Gate open?\n"
            "**A2.** 1871\n**Q3.** Who guards the Harl Gate?\n"
        ),
        "1. Q: Who built the Harl Gate?\n   A: Ume Stoll\n2. Q: When did the Harl Gate open?\n   A: 1871",
        "1. Who built the Harl Gate? Ume Stoll\n2) When did the Harl Gate open? - 1871",
        (
            "Here are two questions.\n\n"
            "1. Who built the Harl Gate?\n   - Ume Stoll\n2. When did the Harl Gate open?\n   1871\n"
        ),
        (
            "<think>They want pairs. Q: what? A: this</think>\nQ: Who built the Harl Gate?\nA: Ume Stoll\n"
            "Q: When did the Harl Gate open?\nA: 1871"
        ),
    ],
)
def test_reply_formats(reply):
    assert pairs(reply) == PAIRS


def test_quotation_marks_and_escapes_inside_a_value():
    reply = (
        r'[{"question": "Who wrote "The Low Door"?", "answer": "Ana \"Bo\" Reed", "full_answer": "It was Ana Reed."}]'
    )
    (qa,) = parse_qas(reply, style="facts")
    assert (qa.question, qa.answer, qa.full_answer) == (
        'Who wrote "The Low Door"?',
        'Ana "Bo" Reed',
        "It was Ana Reed.",
    )
    assert (qa.style, qa.source, qa.answer_grounded) == ("facts", "model", True)


@pytest.mark.parametrize(
    "reply",
    [
        "Q: Who built the Harl Gate?\nA:\n",
        'Q: Who built the Harl Gate?\nA: ""',
        '{"question": "Who built the Harl Gate?"}',
        '{"question": "Who built the Harl Gate?", "answer": null}',
        "Q: Who built the Harl Gate?\nA: Not mentioned in the passage.",
        "Q: <question>\nA: <answer>",
        "Q: ???\nA: 5",
        "Q: What does this passage describe?\nA: a gate",
        "Q: Which year does the text above name?\nA: 1871",
        "Q: When was it built?\nA: 1871",
        "Q: When was the Harl Gate of 1871 built?\nA: 1871",
        "Q: Who built the Harl Gate?\nA: " + "a very long answer " * 9,
    ],
)
def test_unusable_questions_are_dropped(reply):
    assert pairs(reply) == []


@pytest.mark.parametrize(
    ("question", "kept"),
    [
        ("According to the passage, who built the Harl Gate?", "Who built the Harl Gate?"),
        ("Who built the Harl Gate, according to the text?", "Who built the Harl Gate?"),
        ("Who built the Harl Gate mentioned in this document?", "Who built the Harl Gate?"),
        ("Based on the given article, who built the Harl Gate?", "Who built the Harl Gate?"),
    ],
)
def test_a_reference_to_the_passage_is_removed(question, kept):
    assert pairs(f"Q: {question}\nA: Ume Stoll") == [(kept, "Ume Stoll")]


def test_a_question_that_names_nothing_gets_its_subject():
    reply = "Q: When was it built?\nA: 1871\nQ: Where did he leave Arl?\nA: at sea\nQ: How high is the gate?\nA: 9 m"
    assert [q for q, _ in pairs(reply, subject="Harl Gate")] == [
        "About Harl Gate: when was it built?",
        "About Harl Gate: where did he leave Arl?",
        "About Harl Gate: how high is the gate?",
    ]
    assert pairs("Q: How high is the harl gate?\nA: 9 m", subject="Harl Gate")[0][0] == "How high is the harl gate?"


def test_questions_that_differ_only_in_case_and_punctuation_are_duplicates():
    reply = "Q: Who built the Harl Gate?\nA: Ume Stoll\nQ: who built the  Harl-Gate\nA: someone else"
    assert pairs(reply) == PAIRS[:1]


def test_other_scripts():
    assert pairs("Q: 灯台はいつ建てられましたか？\nA: 1871年") == [("灯台はいつ建てられましたか？", "1871年")]
    assert pairs("1. Кто построил ворота?\n   Уме Столл") == [("Кто построил ворота?", "Уме Столл")]


@given(st.text(max_size=300) | st.text(st.sampled_from("QA:?\"'{}[],\\ \n1.question*<think>"), max_size=300))
def test_any_text_gives_valid_questions_only(text):
    for qa in parse_qas(text, subject="The subject"):
        assert qa.question.strip()
        assert qa.answer.strip()
        assert len(qa.answer.split()) <= 16


@pytest.mark.parametrize(
    "piece",
    [
        '{"question":',
        '"question":"',
        "[[[[",
        '"',
        "'",
        "\\",
        "Q: ",
        "A:",
        "?\n",
        " ",
        "\n",
        "<think>",
        "in the ",
        '"a?"',
        'Q: "',
        "x",
        "* ",
        "'?",
    ],
)
def test_megabytes_of_garbage_take_bounded_time(piece):
    reply = piece * (3_000_000 // len(piece))
    assert len(reply) > MAX_REPLY
    started = time.process_time()
    parse_qas(reply, subject="It")
    assert time.process_time() - started < 8


def test_every_question_is_reported_and_those_that_are_dropped_as_none():
    reply = "Q: Who built Arl?\nA: Ume Stoll\nQ: What does the passage say?\nA: 1871\nQ: who built Arl\nA: Ume"
    assert [None if qa is None else qa.answer for qa in read_qas(reply)] == ["Ume Stoll", None, "Ume"]
    assert [qa.answer for qa in parse_qas(reply)] == ["Ume Stoll"]
    assert read_qas("I cannot help with that.") == []
