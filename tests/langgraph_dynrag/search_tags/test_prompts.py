"""Prompts that tell a model how to search: their marks are those of the format, and their examples obey it."""

import pytest

from langgraph_dynrag.search_tags.formats import R1_SEARCHER, SEARCH, SEARCH_O1, SEARCH_R1, TagFormat, shown
from langgraph_dynrag.search_tags.prompts import tag_prompt
from langgraph_dynrag.short_answer import is_complete, short_answer

MINE = TagFormat("mine", ("{{", "}}"), ("((", "))"), numbering="#{} ")


@pytest.mark.parametrize("tag_format", [SEARCH, SEARCH_O1, SEARCH_R1, R1_SEARCHER, MINE], ids=lambda f: f.name)
def test_the_instructions_show_a_call_and_name_the_marks_of_results(tag_format):
    prompt = tag_prompt(tag_format)
    (call,) = tag_format.calls(prompt.instructions)
    assert call.query
    assert all(mark in prompt.instructions for mark in tag_format.result)
    # A blank line does not end the answer, because results and reasoning contain some.
    assert prompt.stop == ("\nQuestion:",)


@pytest.mark.parametrize("tag_format", [SEARCH, MINE], ids=lambda f: f.name)
def test_the_worked_examples_search_and_answer_in_the_format(tag_format):
    prompt = tag_prompt(tag_format)
    assert len(prompt.exemplars) == 2
    for exemplar in prompt.exemplars:
        calls = tag_format.calls(exemplar.answer)
        assert calls
        assert tag_format.open_call(exemplar.answer) is None
        for call in calls:
            after = exemplar.answer[call.span.end :]
            assert after.startswith(f"\n\n{tag_format.result[0]}\n{tag_format.numbering.format(1)}")
            assert f"\n{tag_format.result[1]}\n\n" in after
        hidden = shown(exemplar.answer, [[c.span.start, c.span.end] for c in calls])
        assert is_complete(f"{hidden}\n", prompt.answer_phrase)
        assert short_answer(exemplar.answer, prompt.answer_phrase) in exemplar.answer


@pytest.mark.parametrize(
    ("tag_format", "answer"),
    [
        (SEARCH_O1, "So \\boxed{Hallin}"),
        (SEARCH_R1, "<answer>Hallin</answer>"),
        (R1_SEARCHER, "<answer> Hallin </answer>"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_trained_models_get_instructions_alone_and_their_own_mark_of_the_answer(tag_format, answer):
    prompt = tag_prompt(tag_format)
    assert prompt.exemplars == ()
    assert is_complete(answer, prompt.answer_phrase, prompt.answer_end)
    assert short_answer(answer, prompt.answer_phrase, prompt.answer_end) == "Hallin"
