"""Search-o1's Reason-in-Documents: the steps that the model is shown, and the finding in its reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag import PRESETS, get_preset
from langgraph_dynrag.search_tags.formats import SEARCH, SEARCH_O1
from langgraph_dynrag.search_tags.reason_in_documents import NOTHING, Finding, ReasonInDocuments, steps_so_far

(OPEN, CLOSE), (RESULT, END) = SEARCH_O1.call, SEARCH_O1.result


def words(text):
    return len(text.split())


# ---------------------------------------------------------------------- the steps that are shown


def test_the_first_the_last_four_and_the_search_steps_are_kept():
    lines = [
        "First.",  # 1: the first step
        "Second.",
        "Third.",
        "Who? <search>bridge</search>",  # 4: a call
        "<result> [1] It was Wray. </result>",  # 5: its results
        "Sixth.",
        "Seventh.",
        "Eighth.",  # 8 to 11: the last four
        "Ninth.",
        "Tenth.",
        "Eleventh. <search>Wray</search>",
    ]
    expected = (
        "1. First.\n...\n4. Who? <search>bridge</search>\n5. <result> [1] It was Wray. </result>\n...\n8. Eighth.\n"
        "9. Ninth.\n10. Tenth.\n11. Eleventh. <search>Wray</search>"
    )
    assert steps_so_far("\n\n".join(lines), [], SEARCH, 999, words) == expected
    assert steps_so_far("\n".join(lines[:2]), [], SEARCH, 999, words) == "1. First.\n2. Second."


def test_an_inserted_block_is_one_step_and_a_call_stays_in_its_line():
    call, block = "<search>bridge</search>", SEARCH.block("[1] One.\n[2] Two.")
    before = "I look it up. "
    text = f"{before}{call}{block}It was Wray."
    at = len(before) + len(call)
    hidden = [[len(before), at], [at, at + len(block)]]
    assert steps_so_far(text, hidden, SEARCH, 999, words).split("\n") == [
        "1. I look it up. <search>bridge</search>",
        "2. <result> [1] One. [2] Two. </result>",
        "3. It was Wray.",
    ]


def test_steps_that_do_not_fit_are_dropped_from_the_second_on():
    text = "one two\nthree four\nfive six\nseven <search>eight</search>"
    # With numbers, a line has 3 words, and the dots count as 1.
    assert steps_so_far(text, [], SEARCH, 12, words).count("\n") == 3
    assert steps_so_far(text, [], SEARCH, 11, words) == "1. one two\n...\n3. five six\n4. seven <search>eight</search>"
    assert steps_so_far(text, [], SEARCH, 7, words) == "1. one two\n...\n4. seven <search>eight</search>"
    assert steps_so_far(text, [], SEARCH, 4, words) == "...\n4. seven <search>eight</search>"
    assert steps_so_far(text, [], SEARCH, 2, words) == "... <search>eight</search>"


_LINES = st.lists(
    st.sampled_from(["a b", "c", "d <search>e</search>", "<result> f </result>", "", "g " * 30]),
    min_size=1,
    max_size=14,
)


@given(_LINES, st.integers(2, 60))
def test_steps_stay_in_order_and_within_the_budget_and_none_is_missing(lines, budget):
    text = "\n".join(lines)
    steps = [" ".join(line.split()) for line in lines if line.strip()]
    numbered = [f"{i}. {step}" for i, step in enumerate(steps, 1)]
    whole = [line for line in steps_so_far(text, [], SEARCH, 10_000, words).split("\n") if line != "..."]
    belonging = [
        line
        for i, line in enumerate(numbered)
        if i == 0 or i >= len(steps) - 4 or "search>" in line or "result>" in line
    ]
    assert [line for line in whole if line] == belonging
    assert words(steps_so_far(text, [], SEARCH, budget, words)) <= budget


# ---------------------------------------------------------------------- the reply


@pytest.mark.parametrize(
    ("reply", "finding"),
    [
        ("The first tells it.\nHelpful information: Wray was\nborn in Hallin.", ("Wray was born in Hallin.", True)),
        ("**Helpful information:** Wray.", ("Wray.", True)),
        ("**HELPFUL INFORMATION** : Wray.", ("Wray.", True)),
        ("Helpful information: a? Helpful information: Wray.", ("Wray.", True)),
        ("Wray was born in Hallin.", ("Wray was born in Hallin.", True)),
        ("<think>Helpful information: no</think> Wray.", ("Wray.", True)),
        ("What is it? Helpful information: no</think>Helpful information: Wray.", ("Wray.", True)),
        (f"Helpful information: {NOTHING}", (NOTHING, False)),
        ("helpful information: no helpful information is found in the documents", (NOTHING, False)),
        (
            "Helpful information: No helpful information is in the first, but Wray was born in Hallin.",
            ("No helpful information is in the first, but Wray was born in Hallin.", True),
        ),
        ("There is no helpful information: it tells of rivers.", None),
        ("Helpful information: None.", (NOTHING, False)),
        ("Helpful information: Nothing is known of Wray.", ("Nothing is known of Wray.", True)),
        ("Helpful information:", None),
        (" \n\u200b ", None),
        ("<think>and on and on", None),
    ],
)
def test_the_finding_is_the_text_after_the_last_heading(reply, finding):
    if "rivers" in reply:  # without a heading, the whole reply is used
        finding = (reply, True)
    expected = None if finding is None else Finding(*finding)
    assert ReasonInDocuments().finding(reply) == expected


@given(st.text(max_size=80))
def test_a_finding_is_one_line_of_visible_text_or_none(reply):
    finding = ReasonInDocuments().finding(reply)
    assert finding is None or (finding.text.strip() and "\n" not in finding.text)


def test_placeholders_in_inserted_texts_are_not_replaced():
    prompt = ReasonInDocuments().prompt("1. {query} {0}", "{documents}", "{steps} \\1")
    assert "1. {query} {0}" in prompt
    assert "Query: {documents}\n" in prompt
    assert "{steps} \\1" in prompt
    assert prompt.endswith(f'If there are none, write "Helpful information: {NOTHING}"')


def test_the_digest_is_only_enabled_for_the_method_that_published_it():
    assert [name for name in PRESETS if get_preset(name).settings.get("digest")] == ["search_o1"]
    assert get_preset("search_o1").settings["digest"] == ReasonInDocuments(512, 1024)
