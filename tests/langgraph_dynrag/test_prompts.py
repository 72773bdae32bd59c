"""The prompt: instructions, worked examples, passages, question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langgraph_dynrag import AnswerPrompt, Exemplar, reasoned_prompt
from langgraph_dynrag.evidence import passage
from rag_backbone.errors import ConfigurationError

PHRASE = "So the answer is"
EXEMPLARS = 8


def test_an_end_mark_without_a_phrase_is_rejected():
    with pytest.raises(ConfigurationError, match="answer_end is '</a>' and answer_phrase None"):
        AnswerPrompt(answer_phrase=None, answer_end="</a>")


@pytest.mark.parametrize("n", range(EXEMPLARS + 1))
def test_exemplars_end_with_the_phrase_and_precede_everything_that_changes(n):
    prompt = reasoned_prompt(n)
    first = prompt.messages("Who?", ())
    second = prompt.messages("When?", (passage("text a", {}, "a"),))
    assert first[:-1] == second[:-1]
    assert len(first) == len(second)
    answers = [m.content for m in first if isinstance(m, AIMessage)]
    assert len(answers) == n
    assert all(PHRASE in a and a.rstrip().endswith(".") for a in answers)
    assert "Who?" in first[-1].content
    assert "[1] text a" in second[-1].content


def test_too_many_exemplars_are_rejected():
    with pytest.raises(ConfigurationError, match=str(EXEMPLARS + 1)):
        reasoned_prompt(EXEMPLARS + 1)


@given(st.text())
def test_braces_and_other_characters_in_a_question_are_kept(question):
    human = AnswerPrompt().messages(question, (passage("A {brace}.", {}, "a"),))[-1].content
    assert question in human
    assert "A {brace}." in human


def test_passages_precede_the_question():
    prompt = AnswerPrompt()
    assert prompt.human("Who?", ()) == "Question: Who?"
    shown = prompt.human("Who?", (passage("A bridge.", {}, "a"),))
    assert shown.index("[1] A bridge.") < shown.index("Question: Who?")
    assert shown.endswith("Question: Who?")


@pytest.mark.parametrize("name", ["{passages}", "{question}"])
def test_placeholders_in_questions_and_passages_are_text(name):
    shown = AnswerPrompt().human(f"What does {name} mean?", (passage(f"It says {name}.", {}, "a"),))
    assert f"Question: What does {name} mean?" in shown
    assert f"[1] It says {name}." in shown


def test_a_users_system_text_follows_the_instructions_in_a_copy():
    prompt = reasoned_prompt(1)
    told = prompt.with_system("Be brief.")
    messages = told.messages("Who?", ())
    assert messages[0].content == f"{prompt.instructions}\n\nBe brief."
    assert messages[1:] == prompt.messages("Who?", ())[1:]
    assert prompt.messages("Who?", ())[0].content == prompt.instructions
    assert prompt.with_system("") is prompt
    assert AnswerPrompt(instructions="").with_system("Be brief.").messages("Who?", ())[0].content == "Be brief."


def test_a_system_text_can_be_added_to_a_prompt_of_ones_own():
    class Bare(AnswerPrompt):
        def messages(self, question, passages):
            return [HumanMessage(question)]

    first, second = Bare().with_system("Be brief.").messages("Who?", ())
    assert (first.content, second.content) == ("Be brief.", "Who?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exemplars": (Exemplar("Q?", "It was Wray."),)}, "the exemplar for 'Q.' does not contain 'So the answer is'"),
        ({"answer_end": " "}, "answer_end is ' '"),
        ({"with_passages": "{question}"}, "with_passages lacks {passages}"),
        ({"with_passages": "{passages}"}, "with_passages lacks {question}"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        AnswerPrompt(**options)


def test_without_an_answer_phrase_exemplars_may_end_as_they_like():
    prompt = AnswerPrompt(exemplars=(Exemplar("Q?", "It was Wray."),), answer_phrase=None)
    assert [m.content for m in prompt.messages("Who?", ())][1:3] == ["Question: Q?", "It was Wray."]
