"""The task for the next draft, built from a state."""

import math

import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, create_nodes
from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.steps.task import derived_seed, draft_task, prompt_passages, unit_now
from langgraph_dynrag.triggers import RIND, Never, Once
from tests.langgraph_dynrag.running import scripted_settings
from tests.langgraph_dynrag.scripted import WatchedRetriever

BRIDGE = passage("The bridge was built by Aldous Wray.", {"title": "Bridge"}, "bridge")


def task_in(state, **options):
    return draft_task({"question": "Who?", **state}, scripted_settings(**options))


def test_the_first_draft_of_a_run_starts_from_nothing():
    task = task_in({})
    assert (task.accepted, task.accepted_ids, len(task.carried), task.closing) == ("", None, 0, False)
    assert task.messages == AnswerPrompt().messages("Who?", ())
    assert task.needs == {"logprob", "entropy"}  # entropies colour the trace wherever they cost nothing
    assert (task.stop, task.answer_phrase) == (AnswerPrompt().stop, "So the answer is")
    assert task.deadline == math.inf


def test_a_later_draft_continues_text_carried_tokens_and_evidence():
    carried = Draft((" It", " was"), (-0.1,) * 2)
    state = {"text": "It is old.", "draft": carried.to_state(), "evidence": [BRIDGE], "answer_tokens": 4}
    task = task_in(state, budgets=Budgets(tokens=10), lookahead=64)
    assert (task.accepted, task.carried.text) == ("It is old.", " It was")
    assert "[1] Bridge: The bridge" in task.messages[-1].content
    assert task.limit == 10 - 4 - 2


@pytest.mark.parametrize(("used", "lookahead", "limit"), [(0, 8, 8), (95, 8, 5), (100, 8, 1), (999, 8, 1)])
def test_a_draft_is_as_long_as_lookahead_and_budget_allow_and_never_empty(used, lookahead, limit):
    assert task_in({"answer_tokens": used}, lookahead=lookahead, budgets=Budgets(tokens=100)).limit == limit


def test_the_short_answer_has_its_own_budget_ends_with_the_line_and_needs_no_signal_that_costs():
    task = task_in({"stage": "closing", "answer_tokens": 256}, budgets=Budgets(closing_tokens=9, seconds=5))
    assert (task.closing, task.limit, task.unit, task.deadline) == (True, 9, Unit("sentence"), math.inf)
    assert task.stop[-1] == "\n"
    assert task.needs == {"logprob", "entropy"}


def test_tokens_whose_attention_is_lost_are_written_again(chat):
    nodes = create_nodes(chat, WatchedRetriever(), preset="dragin", prompt=AnswerPrompt())
    carried = Draft(("It",), (-0.1,), token_ids=(4,))
    state = {"question": "Who?", "draft": carried.to_state()}
    assert len(draft_task(state, nodes.begin.settings).carried) == 0
    assert len(draft_task({**state, "attention": object()}, nodes.begin.settings).carried) == 1


def test_what_replies_have_shown_is_used_for_the_next_one():
    replies = {"reasoning_tokens": 40, "repetitions": 1, "opens": True}
    task = task_in({"replies": replies}, budgets=Budgets(reasoning_tokens=100))
    assert (task.reasoning_tokens, task.reasons, task.restarts, task.opens) == (60, True, True, True)
    assert task_in({"replies": replies}, budgets=Budgets(reasoning_tokens=30)).reasoning_tokens == 0
    fresh = task_in({})
    assert (fresh.reasons, fresh.restarts) == (False, False)


@pytest.mark.parametrize(
    ("state", "options", "unit"),
    [
        ({}, {}, Unit("sentence")),
        ({}, {"trigger": Never()}, Unit("all")),
        ({"regenerating": True}, {"trigger": Once()}, Unit("sentence")),
        ({"regenerating": True}, {"trigger": Once(), "recheck": True}, Unit("all")),
        ({"stage": "closing"}, {"trigger": Never()}, Unit("sentence")),
        ({"stage": "closing"}, {"prompt": AnswerPrompt(answer_phrase="<a>", answer_end="</a>")}, Unit("all")),
    ],
)
def test_the_unit_that_is_written_next(state, options, unit):
    assert unit_now(state, scripted_settings(**options)) == unit


def test_evidence_is_cut_to_the_token_limit_of_the_passages():
    long = passage("word " * 500, {}, "long")
    state = {"question": "Who?", "evidence": [BRIDGE, long]}
    kept, affected = prompt_passages(state, scripted_settings(context_tokens=100))
    assert [p["id"] for p in kept] == ["bridge", "long"]
    assert affected == ["long"]
    assert len(kept[1]["text"]) < 300
    assert prompt_passages({"question": "Who?"}, scripted_settings()) == ([], [])


def test_evidence_that_leaves_no_room_for_the_answer_is_left_out(chat):
    budgets = Budgets(tokens=1900, closing_tokens=24)
    settings = create_nodes(
        chat, WatchedRetriever(), preset="single", prompt=AnswerPrompt(), budgets=budgets
    ).begin.settings
    state = {"question": "Who?", "evidence": [passage("word " * 100, {}, "long")]}
    assert prompt_passages(state, settings) == ([], ["long"])


def test_methods_with_results_in_the_text_have_no_passages_in_the_prompt():
    state = {"question": "Who?", "evidence": [BRIDGE]}
    assert prompt_passages(state, scripted_settings(preset="search_tag", prompt=None)) == ([], [])


def test_each_draft_has_a_seed_of_its_own_that_a_resumed_run_finds_again():
    base = (1, "Who?", 0, 0)
    others = [(2, "Who?", 0, 0), (1, "Where?", 0, 0), (1, "Who?", 1, 0), (1, "Who?", 0, 1)]
    assert derived_seed(*base) == derived_seed(*base)
    assert len({derived_seed(*one) for one in (base, *others)}) == 5
    assert 0 <= derived_seed(*base) < 2**48


def test_a_seed_of_the_settings_is_the_source_of_the_drafts_seed():
    assert task_in({}, seed=None).seed is None
    assert task_in({"answer_tokens": 3}, seed=5).seed == derived_seed(5, "Who?", 3, 0)


def test_rind_needs_attention_while_drafting_but_not_for_the_short_answer(chat):
    settings = create_nodes(
        chat, WatchedRetriever(), preset="dragin", prompt=AnswerPrompt(), trigger=RIND(1.0)
    ).begin.settings
    assert "attention" in draft_task({"question": "Who?"}, settings).needs
    assert draft_task({"question": "Who?", "stage": "closing"}, settings).needs == {"logprob", "entropy"}
