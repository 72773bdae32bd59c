"""Short greedy answers, each with the factors of its own document."""

import torch

from llamaindex_prag.prompts import clean_answer, prompt_ids
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.translator.training import answering
from llamaindex_prag.translator.training.answering import answers
from rag_backbone.engine.requests import Request
from tests.llamaindex_prag.made import random_values, with_update
from tests.llamaindex_prag.translator.training.lessons import translator

QUESTIONS = ["Who?", "In which year was the bridge of the town built, and by whom?", "When did Ada come?"]


def factors_of(lm, size):
    layout = translator(lm).config.layout
    values = torch.stack([torch.from_numpy(random_values(layout, i, size)) for i in range(2)])
    return layout, values, DocumentFactors(lm.model, layout, values, 2, 2.0)


def asked(lm):
    return [(i % 2, prompt_ids(lm.tokenizer, question)) for i, question in enumerate(QUESTIONS)]


def test_answers_are_those_of_a_model_with_the_documents_updates(lm):
    layout, values, factors = factors_of(lm, 0.3)
    found = answers(lm.engine, factors, asked(lm), tokens=6)
    expected = []
    for document, ids in asked(lm):
        dense = with_update(lm.model, layout, [(values[document].numpy(), 2.0)])
        said = dense.generate(
            torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=lm.tokenizer.pad_token_id
        )
        expected.append(clean_answer(lm.tokenizer.decode(said[0, len(ids) :], skip_special_tokens=True)))
    assert found == expected
    assert not any("forward" in vars(m) for m in lm.model.modules())


def test_without_updates_the_base_model_answers(lm):
    layout = translator(lm).config.layout
    factors = DocumentFactors(lm.model, layout, torch.zeros(layout.size), 2, 1.0)
    said = [lm.engine.generate(Request(ids, 6)).token_ids for _, ids in asked(lm)]
    expected = [clean_answer(lm.tokenizer.decode(ids, skip_special_tokens=True)) for ids in said]
    assert answers(lm.engine, factors, asked(lm), tokens=6) == expected


def test_the_batch_size_does_not_change_an_answer(lm, monkeypatch):
    _, _, factors = factors_of(lm, 0.3)
    together = answers(lm.engine, factors, asked(lm), tokens=6)
    monkeypatch.setattr(answering, "_TOGETHER", 1)
    assert answers(lm.engine, factors, asked(lm), tokens=6) == together
    assert answers(lm.engine, factors, []) == []
