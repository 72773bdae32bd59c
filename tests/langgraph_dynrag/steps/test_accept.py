"""Drafted tokens that become part of the answer, and how an answer ends."""

import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, create_nodes
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.prompts import Exemplar
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.steps.accept import accept, after_acceptance, answer_complete, budget_event, finish, force_answer
from tests.langgraph_dynrag.running import events, scripted_settings
from tests.langgraph_dynrag.scripted import WatchedRetriever, said


def draft_of(text, **fields):
    pieces = tuple(piece for piece, _ in said(text))
    return Draft(pieces, (-0.1,) * len(pieces), **fields)


def accepted(text, tokens=None, state=None, settings=None, *, keep_rest=True, **fields):
    draft = draft_of(text, **fields)
    count = len(draft) if tokens is None else tokens
    return accept(state or {}, settings or scripted_settings(), draft, count, keep_rest=keep_rest)


def ended(text, state=None, settings=None, tokens=None, **fields):
    """Return the update after a draft was accepted in a state."""
    settings, state = settings or scripted_settings(), {"question": "Who?", **(state or {})}
    draft = draft_of(text, **fields)
    count = len(draft) if tokens is None else tokens
    update = accept(state, settings, draft, count, keep_rest=True)
    return after_acceptance(state, update, settings, draft, count)


# ---------------------------------------------------------------------- accepting


def test_accepted_tokens_move_from_the_draft_into_the_text():
    update = accepted(" It was Wray. Then", tokens=4, state={"text": "It is old.", "answer_tokens": 4})
    assert (update["text"], update["answer_tokens"]) == ("It is old. It was Wray.", 8)
    assert Draft.from_state(update["draft"]).text == " Then"
    assert (update["judged"], update["verdict"], update["regenerating"]) == (0, None, False)


def test_the_rest_is_dropped_if_the_prompt_changes():
    assert accepted("It was Wray. Then", tokens=4, keep_rest=False)["draft"] is None


def test_ids_are_known_only_if_those_of_the_text_and_of_the_draft_are():
    state = {"token_ids": [1, 2]}
    assert accepted("It was", state=state, token_ids=(3, 4))["token_ids"] == [1, 2, 3, 4]
    assert accepted("It was", state=state)["token_ids"] is None
    assert accepted("It was", token_ids=(3, 4))["token_ids"] is None
    assert accepted("It was", tokens=0, state=state)["token_ids"] == [1, 2]


def test_only_entropies_of_content_words_are_kept():
    update = accepted("The mason built it.", state={"entropies": [9.0]}, entropies=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert update["entropies"] == [9.0, 2.0, 3.0]


def test_text_after_the_short_answer_is_cut():
    update = accepted("So the answer is Wray. The next question is about rivers.", state={"text": "It is old. "})
    assert update["text"] == "It is old. So the answer is Wray."


def test_closed_calls_are_hidden_and_earlier_spans_stay():
    searching = scripted_settings(preset="search_tag", prompt=None)
    update = accepted("b <search>c</search>", state={"text": "a ", "hidden": [[0, 1]]}, settings=searching)
    assert update["hidden"] == [[0, 1], [4, 22]]


# ---------------------------------------------------------------------- whether the answer is complete


@pytest.mark.parametrize(
    ("before", "text", "tokens", "ended", "complete"),
    [
        ("", "So the answer is Wray. The next", None, "unit", True),
        ("", "So the answer is Wray.", None, "unit", False),  # it may become "Wray.com"
        ("", "So the answer is Wray.", None, "end", True),
        ("So the answer", " is Wray. The next", None, "unit", True),
        ("", "It was Wray. The next", None, "unit", False),
        # The tokens after the accepted ones tell whether the sentence has ended.
        ("", "So the answer is Wray. The next", 6, "unit", True),
        # The phrase itself is not accepted yet.
        ("", "It is old. So the answer is Wray. The next", 4, "unit", False),
    ],
)
def test_an_answer_is_complete_once_its_sentence_has_ended(before, text, tokens, ended, complete):
    draft = draft_of(text, ended=ended)
    assert answer_complete(before, draft, tokens or len(draft), scripted_settings()) is complete


def test_a_phrase_inside_an_open_search_does_not_count():
    searching = scripted_settings(preset="search_tag", prompt=None)
    draft = draft_of("<search>So the answer is Wray. The next")
    assert not answer_complete("", draft, len(draft), searching)


def test_without_a_phrase_no_text_is_a_complete_answer():
    settings = scripted_settings(prompt=AnswerPrompt(answer_phrase=None))
    draft = draft_of("It was Wray.", ended="end")
    assert not answer_complete("", draft, len(draft), settings)


# ---------------------------------------------------------------------- ending


def test_writing_continues_while_answer_and_budgets_last():
    update = ended("It was Wray. Then", tokens=4)
    assert "stage" not in update
    assert update["text"] == "It was Wray."


def test_a_complete_answer_ends_the_run_with_its_message():
    update = ended("It is old. So the answer is Wray. The next", {"run_id": "7"})
    assert (update["stage"], update["short_answer"]) == ("done", "Wray")
    assert update["answer"] == "It is old. So the answer is Wray."
    (message,) = update["messages"]
    assert (message.content, message.id) == (update["answer"], "dynrag-7")
    assert message.response_metadata["dynprag"] == {"short_answer": "Wray"}
    assert (update["draft"], update["attention"], update["warnings"]) == (None, None, [])


@pytest.mark.parametrize(
    ("budgets", "state", "which"),
    [
        (Budgets(tokens=4), {}, "tokens"),
        (Budgets(seconds=5), {"seconds": {"generate": 4.0, "retrieve": 1.0}}, "seconds"),
    ],
)
def test_a_used_up_budget_asks_for_the_short_answer(budgets, state, which):
    update = ended("It was Wray.", state, scripted_settings(budgets=budgets))
    assert (update["stage"], update["budget_hit"]) == ("closing", which)
    assert update["text"] == "It was Wray. So the answer is"
    assert [e["which"] for e in events(update, "budget")] == [which]
    assert [e["text"] for e in events(update, "closing")] == [" So the answer is"]


def test_an_answer_that_the_model_ended_without_the_phrase_is_asked_for():
    update = ended("It was Wray.", ended="end")
    assert (update["stage"], update.get("budget_hit")) == ("closing", None)
    assert not events(update, "budget")


def test_a_short_answer_that_was_begun_is_completed_without_the_phrase():
    settings = scripted_settings()
    begun = accept({}, settings, draft_of("So the answer is Al"), 5, keep_rest=False)
    update = force_answer({}, begun, settings)
    assert (update["stage"], update["text"]) == ("closing", "So the answer is Al")
    # If the model ended it there, it is the answer.
    assert force_answer({}, begun, settings, model_ended=True)["short_answer"] == "Al"


def test_white_space_before_the_phrase_is_replaced():
    settings = scripted_settings()
    begun = accept({}, settings, Draft(("It was", " \n\n"), (-0.1, -0.1)), 2, keep_rest=False)
    assert force_answer({}, begun, settings)["text"] == "It was\nSo the answer is"


def test_without_a_phrase_the_whole_text_is_the_answer():
    update = ended("It was Wray.", settings=scripted_settings(prompt=AnswerPrompt(answer_phrase=None)), ended="end")
    assert (update["stage"], update["answer"], update["short_answer"]) == ("done", "It was Wray.", "It was Wray.")


def test_an_answer_that_is_compared_with_another_one_is_not_final_yet(chat):
    nodes = create_nodes(chat, WatchedRetriever(), preset="single", prompt=AnswerPrompt(), final_answer=SurerAnswer())
    update = ended("So the answer is Wray. The next", settings=nodes.begin.settings)
    assert update["stage"] == "concluding"
    assert "answer" not in update


# ---------------------------------------------------------------------- the final update


def test_the_final_update_tells_what_went_wrong():
    failed = {"type": "retrieval", "query": "q", "error": "OSError: gone", "documents": []}
    update = finish({"trace": [failed]}, {"text": " It was. ", "hidden": []}, scripted_settings())
    assert update["answer"] == "It was."
    assert update["warnings"][0].startswith("1 of 1 searches failed")
    assert update["messages"][0].response_metadata["dynprag"]["warnings"] == update["warnings"]


def test_a_fact_of_a_worked_example_in_the_answer_is_reported():
    prompt = AnswerPrompt(exemplars=(Exemplar("Who wrote it?", "So the answer is Ansel Dorvany."),))
    settings, update = scripted_settings(prompt=prompt), {"text": "So the answer is Dorvany.", "hidden": []}
    (event,) = events(finish({}, update, settings), "exemplar")
    assert event["facts"] == ["Dorvany"]
    known = [{"title": "", "text": "Dorvany wrote it.", "id": "1"}]
    assert not events(finish({"evidence": known}, update, settings), "exemplar")


def test_a_known_short_answer_is_not_read_from_the_text():
    update = finish({}, {"text": "Yes, it is.", "hidden": []}, scripted_settings(), short="yes")
    assert (update["answer"], update["short_answer"]) == ("Yes, it is.", "yes")


def test_the_event_of_a_budget_names_its_limit():
    event = budget_event("tokens", scripted_settings(budgets=Budgets(tokens=7)))
    assert event == {"type": "budget", "which": "tokens", "limit": 7}
