"""Which of a model's questions are used, and what is said about the others."""

from llamaindex_prag.augment.endpoint.replies import selected

TITLE = "Harl Gate"
TEXT = "The Harl Gate was built in 1871 by Ume Stoll. It stands near Ostrim and has twenty-two doors."
SHARES = {"search": 2, "implication": 1, "reverse": 1}


def reply(*pairs):
    return "\n".join(f"Q: {question}\nA: {answer}" for question, answer in pairs)


GOOD = {
    "search": reply(("who built Harl Gate", "Ume Stoll"), ("Harl Gate doors", "twenty-two")),
    "implication": reply(("Did Ume Stoll build doors near Ostrim?", "yes")),
    "reverse": reply(("Which structure has twenty-two doors near Ostrim?", "Harl Gate")),
}


def questions(outcome):
    return [(qa.style, qa.question, qa.answer) for qa in outcome.augmentation.qas]


def test_each_style_gives_its_share_in_order():
    outcome = selected(TITLE, TEXT, GOOD, SHARES)
    assert questions(outcome) == [
        ("search", "Who built Harl Gate", "Ume Stoll"),
        ("search", "Harl Gate doors", "twenty-two"),
        ("implication", "Did Ume Stoll build doors near Ostrim?", "yes"),
        ("reverse", "Which structure has twenty-two doors near Ostrim?", "Harl Gate"),
    ]
    assert (outcome.failed, outcome.augmentation.notes, outcome.augmentation.rewrite) == (False, (), None)
    assert all(qa.source == "model" and qa.answer_grounded for qa in outcome.augmentation.qas)


def test_what_another_style_has_left_fills_a_gap():
    more = GOOD | {"search": reply(("Harl Gate built when", "1871")) + "\n" + GOOD["search"], "reverse": "Sorry."}
    outcome = selected(TITLE, TEXT, more, SHARES)
    assert [style for style, _, _ in questions(outcome)] == ["search", "search", "implication", "search"]
    assert outcome.augmentation.notes == ("reverse: no question could be parsed from the reply 'Sorry.'",)


def test_dropped_questions_are_counted_by_reason():
    replies = GOOD | {
        "implication": reply(
            ("Who owns the Harl Gate?", "Napoleon"),  # not in the passage
            ("What is the roof of Pell House made of?", "doors"),  # about something else
            ("WHO built Harl Gate?", "Stoll"),  # asked before
            ("Did Ume Stoll build doors near Ostrim?", "yes"),
            ("did ume stoll build doors near ostrim", "yes"),
            ("What does the passage say?", "1871"),  # unclear without it
            ("Harl Gate in which year?", "n/a"),
        )
    }
    outcome = selected(TITLE, TEXT, replies, SHARES)
    assert questions(outcome) == questions(selected(TITLE, TEXT, GOOD, SHARES))
    (note,) = outcome.augmentation.notes
    assert note == (
        "6 of 10 questions dropped: 2 duplicate, 2 not grounded in the passage, "
        "2 not usable (no short answer, or unclear without the passage)"
    )
    assert not outcome.failed


def test_a_style_that_failed_is_noted_and_the_others_are_used():
    outcome = selected(TITLE, TEXT, GOOD | {"search": TimeoutError("too slow")}, SHARES)
    assert [style for style, _, _ in questions(outcome)] == ["implication", "reverse"]
    assert outcome.augmentation.notes == ("search: the model failed with TimeoutError: too slow",)
    assert outcome.failed  # so it is not stored


def test_without_any_question_the_rules_write_them_with_a_note():
    outcome = selected(TITLE, TEXT, dict.fromkeys(SHARES, ""), SHARES)
    assert outcome.augmentation.sources == {"cloze": 4}
    assert outcome.augmentation.notes[-1] == "no question from the model was left: rules generated them"
    assert len(outcome.augmentation.notes) == 4
    assert not outcome.failed  # the model has answered; asking again would cost the same
    assert selected(TITLE, TEXT, dict.fromkeys(SHARES, OSError("gone")), SHARES).failed
