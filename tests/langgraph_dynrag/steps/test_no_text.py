"""Replies without new text: asked again, taken as the end, or given up."""

import logging

import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, create_nodes
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.drafts.tasks import DraftResult
from langgraph_dynrag.steps.no_text import asked_again, counted, reply_events, with_an_answer
from rag_backbone.errors import NoAnswerError
from tests.langgraph_dynrag.running import events, scripted_settings

EMPTY = DraftResult(Draft(), problem="no text")
WRITTEN = DraftResult(Draft(("It",), (-0.1,)))


def state_of(problem, fruitless=1, **changes):
    return {"text": "It was.", "replies": {"problem": problem, "fruitless": fruitless}, **changes}


# ---------------------------------------------------------------------- counting


def test_fruitless_replies_are_counted_until_one_brings_text():
    first = counted({}, EMPTY, asked=True)
    second = counted({"replies": first}, EMPTY, asked=True)
    assert (first["fruitless"], second["fruitless"], second["problem"]) == (1, 2, "no text")
    third = counted({"replies": second}, WRITTEN, asked=True)
    assert (third["fruitless"], third["problem"]) == (0, None)
    # A draft of carried tokens alone says nothing about the model.
    assert counted({"replies": second}, WRITTEN, asked=False)["fruitless"] == 2


def test_reasoning_and_repetitions_add_up():
    reply = DraftResult(Draft(), cost={"reasoning_tokens": 5}, repeated="It was.", opens=True)
    first = counted({}, reply, asked=True)
    second = counted({"replies": first}, DraftResult(Draft(), cost={"reasoning_tokens": 2}), asked=True)
    assert (second["reasoning_tokens"], second["repetitions"]) == (7, 1)
    # Whether replies begin within reasoning stays known.
    assert second["opens"] is True
    assert "opens" not in counted({}, WRITTEN, asked=True)


def test_what_a_reply_contained_besides_the_draft_is_recorded():
    reply = DraftResult(Draft(), cost={"reasoning_tokens": 5}, reasoning="Hm.", repeated="It was.")
    assert reply_events(reply) == [
        {"type": "reasoning", "text": "Hm.", "tokens": 5},
        {"type": "repetition", "text": "It was."},
    ]
    assert reply_events(WRITTEN) == []


# ---------------------------------------------------------------------- what happens next


def test_a_reply_with_text_changes_nothing():
    draft = Draft(("It",), (-0.1,))
    assert asked_again({"replies": {"problem": None}}, scripted_settings(), draft) == (None, draft, [])
    assert asked_again({}, scripted_settings(), draft) == (None, draft, [])


@pytest.mark.parametrize(
    ("problem", "told"), [("no text", []), ("only what was written", ["taken as the answer's end"])]
)
def test_a_model_with_nothing_to_add_has_ended_its_answer(problem, told):
    update, draft, recorded = asked_again(state_of(problem), scripted_settings(), Draft())
    assert update is None
    assert draft.ended == "end"
    assert [e["outcome"] for e in recorded] == told


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (state_of("no text", text=""), {}),
        (state_of("only reasoning"), {}),
        (state_of("cut off before any text", 2), {}),
        (state_of("no text", stage="closing"), {}),
        (state_of("only reasoning", 5), {"budgets": Budgets(fruitless_replies=5)}),
    ],
)
def test_a_model_that_may_write_more_is_asked_again(state, changes, caplog):
    with caplog.at_level(logging.WARNING):
        update, _, recorded = asked_again(state, scripted_settings(**changes), Draft())
    assert update["replies"]["problem"] is None
    assert update["replies"]["fruitless"] == state["replies"]["fruitless"]
    assert [e["outcome"] for e in events(update, "no_text")] == ["asked again"]
    assert recorded == []
    assert "brought no new text" in caplog.text


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (state_of("only reasoning", 3), {}),
        (state_of("only reasoning", 1), {"budgets": Budgets(fruitless_replies=0)}),
        (state_of("only reasoning", 1, seconds={"generate": 9.0}), {"budgets": Budgets(seconds=5)}),
    ],
)
def test_beyond_the_limits_the_run_goes_on_with_the_text_so_far(state, changes):
    update, draft, (event,) = asked_again(state, scripted_settings(**changes), Draft())
    assert update is None
    assert (draft.ended, event["outcome"]) == ("end", "given up")


def test_a_local_model_that_wrote_nothing_is_not_asked_the_same_again(chat):
    settings = create_nodes(chat, preset="no_retrieval").begin.settings
    update, draft, (event,) = asked_again(state_of("no text", text=""), settings, Draft())
    assert (update, draft.ended, event["outcome"]) == (None, "end", "given up")


# ---------------------------------------------------------------------- the end


def test_a_phrase_that_nothing_follows_is_removed_and_recorded():
    update = with_an_answer({"text": "It was. So the answer is", "hidden": [], "token_ids": None}, scripted_settings())
    assert update["text"] == "It was."
    assert [e["problem"] for e in events(update, "no_text")] == ["no short answer"]


@pytest.mark.parametrize("text", ["It was.", "So the answer is Wray."])
def test_a_text_that_says_something_stays_as_it_is(text):
    update = {"text": text, "hidden": [], "token_ids": None}
    assert with_an_answer(update, scripted_settings()) is update


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ({}, "wrote no answer text in 3 replies or more"),
        ({"reasoning_tokens": 40}, r"40 tokens of reasoning, and 2048 are allowed. Use a larger Budgets\("),
    ],
)
@pytest.mark.parametrize("text", ["", " \n", "So the answer is."])
def test_a_run_without_any_text_raises_with_advice(text, replies, message):
    update = {"text": text, "hidden": [], "token_ids": None, "replies": replies}
    with pytest.raises(NoAnswerError, match=message):
        with_an_answer(update, scripted_settings())


def test_hidden_spans_beyond_the_cut_go_with_it():
    settings = scripted_settings(preset="search_tag", prompt=AnswerPrompt())
    update = {"text": "It was.\nSo the answer is [x]", "hidden": [[0, 3], [24, 28]], "token_ids": None}
    assert with_an_answer(update, settings)["hidden"] == [[0, 3]]
