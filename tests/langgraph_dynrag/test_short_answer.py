"""The short answer within a text, when it is complete, and the phrase that asks for it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag import AnswerPrompt, Budgets, create_dynamic_rag
from langgraph_dynrag.short_answer import (
    answer_start,
    closing_lead,
    find_phrase,
    is_complete,
    short_answer,
    through_answer,
)
from langgraph_dynrag.triggers import Never
from rag_backbone.text.units import sentences
from tests.langgraph_dynrag.scripted import ScriptedChatModel, said

PHRASE = "So the answer is"

TEXT = "The bridge was built by Aldous Wray. He was born in the village of Hallin. So the answer is Hallin."
PHRASES = {
    "So the answer is": TEXT,
    "Die Antwort lautet also": "Die Brücke baute Aldous Wray. Er stammt aus Hallin. Die Antwort lautet also Hallin.",
    "因此答案是": "这座桥由雷建造。他出生在哈林。因此答案是哈林。",
    "इसलिए उत्तर है": "पुल रे ने बनाया। वह हैलिन में पैदा हुआ। इसलिए उत्तर है हैलिन।",
    "<answer>": "The bridge was built by Wray. He was born in Hallin. <answer>Hallin</answer>",
    "\\boxed{": "Wray built it, and he was born in Hallin. \\boxed{Hallin}",
    "İşte cevap:": "Köprüyü İrfan yaptı. Hallin'de doğdu. İşte cevap: Hallin.",
}
ENDS = {"<answer>": "</answer>", "\\boxed{": "}"}


def closed(text, phrase):
    begun = text.rstrip()
    return begun + closing_lead(begun, phrase)


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_text_cut_anywhere_ends_with_the_phrase_once_on_its_own_boundary(phrase):
    text = PHRASES[phrase]
    for cut in range(text.index(phrase) + len(phrase) + 1):
        result = closed(text[:cut], phrase)
        assert result.startswith(text[:cut].rstrip())
        assert result.endswith(phrase), (cut, result)
        assert len(re.findall(re.escape(phrase), result)) == 1, (cut, result)
        at = result.rindex(phrase)
        before = result[:at].rstrip()
        # After a complete sentence, the phrase continues the line; otherwise it starts a new one.
        begins = [s.start for s in sentences(before + " Thus it is.")]
        assert not before or "\n" in result[len(before) : at] or any(b >= len(before) for b in begins), (cut, result)
        # A phrase that was begun is completed, and none of its words is repeated.
        assert not any(result[:at].rstrip().endswith(f" {phrase[:n]}") for n in range(2, len(phrase))), (cut, result)


@given(st.text(max_size=60), st.sampled_from(list(PHRASES)), st.data())
def test_any_text_is_kept_and_followed_by_the_phrase(text, phrase, data):
    cut = data.draw(st.integers(0, len(phrase)))
    result = closed(text + phrase[:cut], phrase)
    assert result.startswith((text + phrase[:cut]).rstrip())
    assert answer_start(result, phrase) == len(result)


@pytest.mark.parametrize(
    ("text", "lead"),
    [
        ("He was born in", "\nSo the answer is"),
        ("He was born in Hallin.", " So the answer is"),
        ("He was born in Hallin. So the", " answer is"),
        ("He was born in Hallin. So the ans", "wer is"),
        ("He was born in Hallin. so  The", " answer is"),
        ("He was born in Hallin. **So the", " answer is"),
        ("He was born in Hallin.\nSo", " the answer is"),
        ("He was born in Hallin. So the answer is", ""),
        ("He was tired, and so", "\nSo the answer is"),  # a sentence may end with a word of the phrase
        ("He was born (in Hallin", "\nSo the answer is"),
        ("So", " the answer is"),
        ("", "So the answer is"),
    ],
)
def test_the_lead_after_a_text(text, lead):
    assert closing_lead(text, "So the answer is") == lead


def test_a_phrase_is_found_with_other_white_space_and_after_letters_that_lengthen_in_lower_case():
    text = "İİİ built it. so the\n answer  is Hallin."
    assert find_phrase(text, "So the answer is").group() == "so the\n answer  is"
    assert short_answer(text, "So the answer is") == "Hallin"


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize("tokens", range(1, 22))
def test_an_answer_cut_by_its_budget_states_the_phrase_once(tokens, phrase):
    words = said(PHRASES[phrase])
    prompt = AnswerPrompt(answer_phrase=phrase, answer_end=ENDS.get(phrase), stop=())
    tail = said(f" Hallin{ENDS.get(phrase, '.')}")
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=[words, tail, tail]),
        preset="no_retrieval",
        trigger=Never(),
        prompt=prompt,
        budgets=Budgets(tokens=tokens),
    )
    result = graph.invoke({"question": "Where was the builder born?"})
    assert len(re.findall(re.escape(phrase), result["answer"])) == 1, result["answer"]
    assert result["short_answer"]


@pytest.mark.parametrize("tokens", [18, 19])
def test_the_short_answer_is_written_even_if_the_budget_ends_after_the_phrase(tokens):
    written = said("The bridge was built by Wray. He was born there. So the answer is the old village of Hallin.")
    begun = "".join(t for t, _ in written[:tokens])
    model = ScriptedChatModel(replies=[written, written[tokens:]])
    graph = create_dynamic_rag(model, preset="no_retrieval", prompt=AnswerPrompt(), budgets=Budgets(tokens=tokens))
    result = graph.invoke({"question": "Where was the builder born?"})
    assert result["short_answer"] == "the old village of Hallin", begun
    assert [e["text"] for e in result["trace"] if e["type"] == "closing"] == [""]


@pytest.mark.parametrize(
    ("text", "phrase", "end", "complete", "short"),
    [
        ("So \\boxed{\\frac{1}{2}} and", "\\boxed{", "}", True, "\\frac{1}{2}"),
        ("So \\boxed{\\frac{1}{2}", "\\boxed{", "}", False, "\\frac{1}{2}"),
        ("<answer> Paris. </Answer> x", "<answer>", "</answer>", True, "Paris"),
        ("<answer>Paris\nand more", "<answer>", "</answer>", False, "Paris"),
        ("nothing", "<answer>", "</answer>", False, "nothing"),
    ],
)
def test_answers_between_marks(text, phrase, end, complete, short):
    assert is_complete(text, phrase, end) is complete
    assert short_answer(text, phrase, end) == short
    cut = through_answer(text, phrase, end)
    assert text.startswith(cut)
    assert (cut != text) is complete


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It was him. So the answer is Aldous Wray.", "Aldous Wray"),
        ("so the answer is: Aldous Wray. Next question", "Aldous Wray"),
        ("So the answer is Washington, D.C.", "Washington, D.C."),
        ("So the answer is Martin Luther King Jr.", "Martin Luther King Jr."),
        ('So the answer is "The Sea Wolf."', "The Sea Wolf"),
        ("So the answer is **1954**.", "1954"),
        ("So the answer is 3.5 metres. It", "3.5 metres"),
        ("So the answer is no. So the answer is yes.", "yes"),
        ("So the answer is", ""),
        ("Nobody knows. ", "Nobody knows."),
    ],
)
def test_short_answers(text, answer):
    assert short_answer(text, PHRASE) == answer


def test_without_a_phrase_the_text_is_the_answer():
    assert short_answer(" The mason. He was old. ", None) == "The mason. He was old."


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("So the answer is", False),
        ("So the answer is Aldous", False),
        ("So the answer is Aldous Wray.", False),  # it may continue: "Wray.com", "Wray. Jr"
        ("So the answer is Aldous Wray.\n", True),
        ("So the answer is Aldous Wray. The next", True),
        ("The answer. It is. Known.", False),
    ],
)
def test_when_an_answer_is_complete(text, complete):
    assert is_complete(text, PHRASE) is complete


@given(st.text("ab .\nS"), st.text("ab .\nS"))
def test_cutting_after_the_answer_keeps_the_text_before_it(before, after):
    text = f"{before}{PHRASE} x{after}"
    cut = through_answer(text, PHRASE)
    assert text.startswith(cut)
    assert cut.startswith(before)
    assert short_answer(cut, PHRASE) == short_answer(through_answer(cut, PHRASE), PHRASE)
