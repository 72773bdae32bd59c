"""Inserted text, and what the answer shows of a text that contains it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag import Budgets, create_nodes
from langgraph_dynrag.steps.insert import insert, last_hidden, own_words, room_left, visible, with_call_closed
from tests.langgraph_dynrag.running import scripted_settings
from tests.langgraph_dynrag.scripted import WatchedRetriever

TEXT = "It was <search>who</search>\n[1] Wray.\n Wray."
HIDDEN = [[7, 27], [27, 38]]


@pytest.fixture(scope="module")
def searching():
    return scripted_settings(preset="search_tag", prompt=None)


def update_of(text, ids=None, hidden=(), answer_tokens=0):
    return {"text": text, "token_ids": ids, "hidden": [*hidden], "answer_tokens": answer_tokens}


def test_calls_and_results_are_not_the_models_own_words():
    assert own_words({"text": TEXT, "hidden": HIDDEN}) == "It was  Wray."
    assert own_words({}) == ""
    assert (last_hidden({"hidden": HIDDEN}), last_hidden({"hidden": []}), last_hidden({})) == (38, 0, 0)


def test_an_open_call_is_held_back(searching):
    assert visible({"text": "It was <search>who"}, searching) == "It was "
    assert visible({"text": "It was Wray."}, searching) == "It was Wray."
    # Methods without searches know no calls.
    assert visible({"text": "It was <search>who"}, scripted_settings()) == "It was <search>who"


@given(text=st.text("ab", max_size=6), block=st.text("xy", min_size=1, max_size=6), since=st.integers(0, 6))
def test_an_inserted_block_is_hidden_and_the_rest_stays(searching, text, block, since):
    since, settings = min(since, len(text)), searching
    inserted = insert(update_of(text), settings, block)
    assert inserted["text"] == text + block
    assert own_words(inserted) == text
    assert own_words(insert(update_of(text), settings, block, since=since)) == text[:since]


def test_the_draft_is_dropped_because_it_did_not_follow_the_block():
    inserted = insert({**update_of("a"), "draft": {"pieces": ["b"]}, "attention": object()}, scripted_settings(), "x")
    assert (inserted["draft"], inserted["attention"], inserted["token_ids"]) == (None, None, None)


def test_token_ids_follow_the_text_if_the_model_has_them(chat):
    settings = create_nodes(chat, WatchedRetriever(), preset="search_tag").begin.settings
    ids = [*settings.generator.token_ids("It was")]
    inserted = insert(update_of("It was", ids), settings, "\n[1] A river.\n")
    assert inserted["token_ids"] == [*ids, *settings.generator.token_ids("\n[1] A river.\n")]
    assert insert(update_of("It was", None), settings, "x")["token_ids"] is None


def test_an_open_call_is_closed_and_hidden(searching):
    closed = with_call_closed(update_of("It was <search>who"), searching)
    assert closed["text"] == "It was <search>who</search>"
    assert own_words(closed) == "It was "
    done = update_of("It was <search>who</search> Wray.", hidden=[[7, 27]])
    assert with_call_closed(done, searching) is done


def test_the_room_that_is_left_excludes_prompt_text_and_tokens_to_come(chat):
    budgets = Budgets(tokens=100, closing_tokens=20)
    settings = create_nodes(chat, WatchedRetriever(), preset="search_tag", budgets=budgets).begin.settings
    state = {"question": "Who built it?"}
    prompt = settings.generator.prompt_tokens(settings.prompt.messages("Who built it?", ()))
    window = settings.generator.context_window
    assert room_left(state, update_of("", [1] * 7), settings) == window - prompt - 7 - 120
    # Tokens of the answer are taken from the budget that was kept for them.
    assert room_left(state, update_of("", [1] * 7, answer_tokens=30), settings) == window - prompt - 7 - 90
    assert room_left(state, update_of("", [1] * 7, answer_tokens=999), settings) == window - prompt - 7 - 20


def test_a_model_with_an_unknown_context_window_has_room_for_anything(searching):
    assert room_left({"question": "Who?"}, update_of("x" * 10**6), searching) == math.inf
