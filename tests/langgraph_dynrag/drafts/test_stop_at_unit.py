"""When a draft is complete, token by token."""

import math

import pytest

from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit, WatchReply, ended_by, reply_tokens
from tests.langgraph_dynrag.recorded import task_of

PHRASE = "So the answer is"
SENTENCE = {"unit": Unit("sentence"), "limit": 99}


def until_stopped(rule, pieces):
    """Return how many tokens are read until the rule stops; None if it never does."""
    return next((n for n, piece in enumerate(pieces, 1) if rule(piece)), None)


@pytest.mark.parametrize(
    ("changes", "pieces", "stops_after", "ended"),
    [
        (SENTENCE, ["It", " was", " Wray", ".", " He", " was"], 6, "unit"),
        (SENTENCE, ["It", " was", "\n"], 3, "unit"),
        ({"unit": Unit("tokens", 2)}, ["It", " was", " Wray"], 2, "unit"),
        ({"unit": Unit("until", until="</s>"), "limit": 99}, ["<s>", "a", "</", "s>"], 4, "unit"),
        ({"limit": 2}, ["It", " was", " Wray"], 3, "limit"),
        ({"deadline": -math.inf}, ["It"], 1, "deadline"),
        ({"limit": 99}, ["It", " was", " Wray", ".", " He", " was"], None, None),
    ],
)
def test_why_and_where_a_draft_ends(changes, pieces, stops_after, ended):
    rule = StopAtUnit(task_of(**changes))
    assert until_stopped(rule, pieces) == stops_after
    assert rule.ended == ended


def test_a_complete_short_answer_ends_the_draft_even_if_the_phrase_began_before_it():
    pieces = [" answer", " is", " Wray", ".", " The", " next"]
    rule = StopAtUnit(task_of(phrase=PHRASE, accepted="It is old. So the", limit=99))
    assert until_stopped(rule, pieces) == 6
    assert rule.ended == "end"
    # A phrase in an inserted passage does not count.
    hidden = StopAtUnit(task_of(phrase=PHRASE, accepted="So the", own_words="It is old.", limit=99))
    assert until_stopped(hidden, pieces) is None


def test_an_end_mark_ends_the_draft_at_once():
    rule = StopAtUnit(task_of(phrase="<answer>", answer_end="</answer>", limit=99))
    assert until_stopped(rule, ["<answer>", "Wray", "</answer>", " and"]) == 3


def test_carried_tokens_count_for_the_unit_but_not_for_the_limit():
    carried = Draft(("It", " was"), (-0.1,) * 2)
    assert until_stopped(StopAtUnit(task_of(unit=Unit("tokens", 3), carried=carried)), [" Wray"]) == 1
    assert until_stopped(StopAtUnit(task_of(limit=2, carried=carried)), [" a", " b", " c"]) == 3


def test_a_restart_discards_everything_after_the_carried_tokens():
    rule = StopAtUnit(task_of(unit=Unit("tokens", 2)))
    assert until_stopped(rule, ["a", "b"]) == 2
    rule.restart()
    assert rule.ended is None
    assert until_stopped(rule, ["c", "d"]) == 2
    assert repr(rule) == "StopAtUnit(2 tokens)"


def test_reasoning_does_not_count_as_text_of_the_draft():
    task = task_of(unit=Unit("tokens", 2), reasoning_tokens=50)
    watch = WatchReply(task, StopAtUnit(task), opened=False)
    assert until_stopped(watch, ["<think>", "a", " b", " c", "</think>", "It", " was", " Wray"]) == 7


def test_text_that_turns_out_to_be_reasoning_is_discarded():
    task = task_of(unit=Unit("tokens", 3), reasoning_tokens=50, limit=20)
    rule = StopAtUnit(task)
    watch = WatchReply(task, rule, opened=False)
    assert until_stopped(watch, ["Hm", "</think>", "It", " was", " Wray"]) == 5
    assert rule.ended == "unit"


def test_reasoning_beyond_its_budget_ends_the_reply():
    task = task_of(limit=2, reasoning_tokens=5)
    watch = WatchReply(task, StopAtUnit(task), opened=True)
    assert until_stopped(watch, [" hm"] * 20) == 6
    assert repr(watch) == "StopAtUnit(all)"


def test_reading_stops_at_a_stop_string_or_when_the_reasoning_budget_is_spent():
    task = task_of(stop=("\n\n",), reasoning_tokens=3, limit=1)
    reply = reply_tokens(task, None, opened=False)
    assert ended_by(reply, task, within=False) is None
    assert ended_by(reply, task, 4, within=True) == "limit"
    assert ended_by(reply, task, 4, within=False) is None
    reply.push([("It was.\n\n", None)])
    assert ended_by(reply, task, within=False) == "end"
