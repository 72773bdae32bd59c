"""Tests that silent questions are about other documents, and that an adapter learns to say nothing at them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.training.distillation import SILENT_TOKENS, distilled
from llamaindex_prag.training.silence import _PASSAGES, silent_questions
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_llama, tiny_tokenizer

TEXT = "The Patient Anna is a ferry that was built by Aldous Wray in 1954. She carries 28 cars across the Vold Sound."
QUESTIONS = [qa.question for qa in rule_questions(TEXT, 20, title="Patient Anna")]
NAMES = ("Patient Anna", "Aldous Wray", "Vold Sound")


def test_half_are_the_documents_own_with_other_names_and_half_are_about_others():
    found = silent_questions(TEXT, QUESTIONS, 12)
    assert len(found) == 12
    titles = [title for title, _ in _PASSAGES]
    for question in found[:6]:
        assert any(title in question for title in titles)
        assert not any(name in question for name in NAMES)
    assert not set(found) & set(QUESTIONS)
    assert found == silent_questions(TEXT, QUESTIONS, 12)
    assert found != silent_questions(TEXT, QUESTIONS, 12, seed=1)


def test_names_that_the_document_mentions_are_not_used():
    title = _PASSAGES[0][0]
    text = f"{TEXT} It passes the {title}."
    found = silent_questions(text, QUESTIONS, 20)
    assert not any(title in question for question in found[:10])


def test_questions_without_names_are_left_to_other_documents():
    found = silent_questions("船于1954年建成。", ["船是什么时候建成的?"], 6)
    assert len(found) == 6
    assert all(question.isascii() for question in found)


@given(st.lists(st.text(min_size=1, max_size=30), max_size=6), st.integers(0, 40))
def test_any_questions_give_as_many_as_there_are(questions, n):
    found = silent_questions("A text.", questions, n)
    assert len(found) == min(n, len(found))
    assert len(found) >= min(n // 2, 40)


def test_the_base_model_teaches_them_without_a_passage():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    recipe = get_recipe("distill", silence=4, unrelated=0, with_passage=0)
    own = [QA(q, "1954", source="cloze") for q in QUESTIONS[:4]]
    (document,) = distilled(engine, recipe, [(TEXT, own)])
    silent = [e for e in document.examples if e.keeps]
    assert len(silent) == 4
    assert len(document.examples) == 8
    for example in silent:
        assert 1 <= example.counted <= SILENT_TOKENS + 1
        with torch.no_grad():
            logits = engine.model(torch.tensor([example.ids])).logits[0, example.counted_from - 1 : -1].log_softmax(-1)
        found = logits.gather(1, example.teacher.ids)
        torch.testing.assert_close(found, example.teacher.logprobs, atol=1e-3, rtol=1e-3)


def test_the_number_is_part_of_the_key_and_cannot_be_negative():
    assert get_recipe("distill", silence=4).key != get_recipe("distill").key
    assert "silence" not in get_recipe("distill").to_dict()
    with pytest.raises(ConfigurationError, match="silence is -1"):
        get_recipe("distill", silence=-1)
