"""Training sequences in which the model with the passage in its prompt teaches the model without it."""

import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.distillation import ANSWER_TOKENS, TOP, distilled, taught
from rag_backbone.engine.engine import Engine
from tests.tiny import tiny_llama, tiny_tokenizer

TEXT = "The bridge was built by an engineer in 1954."
BY_RULE = QA("Who built the bridge?", "an engineer", source="cloze")
BY_MODEL = QA("When was it built?", "in 1954", source="model")
RECIPE = DISTILL.changed(with_passage=0, unrelated=0)
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_llama(), TOKENIZER)


def test_an_answer_by_rule_is_taught_verbatim_and_the_question_alone_is_the_prompt(engine):
    (document,) = distilled(engine, RECIPE, [(TEXT, [BY_RULE])])
    (example,) = document.examples
    prompt = prompt_ids(TOKENIZER, BY_RULE.question)
    assert document.text == TEXT
    assert list(example.ids) == [*prompt, *answer_ids(TOKENIZER, "an engineer"), TOKENIZER.eos_token_id]
    assert (example.counted_from, example.teacher) == (len(prompt), None)


def test_other_answers_are_the_teachers_with_its_distributions(engine):
    (document,) = distilled(engine, RECIPE, [(TEXT, [BY_MODEL])])
    (example,) = document.examples
    prompt, told = prompt_ids(TOKENIZER, BY_MODEL.question), prompt_ids(TOKENIZER, BY_MODEL.question, [TEXT])
    answer = list(example.ids[len(prompt) :])
    assert list(example.ids[: len(prompt)]) == prompt
    assert 0 < len(answer) <= ANSWER_TOKENS + 1
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([[*told, *answer]])).logits[0, len(told) - 1 : -1]
    best = logits.log_softmax(-1).topk(TOP)
    assert torch.equal(logits.argmax(-1), torch.tensor(answer))  # the teacher is greedy
    assert torch.allclose(example.teacher.logprobs, best.values, atol=1e-3)
    assert example.teacher.sees_more
    assert not example.keeps


def test_sequences_that_only_preserve_the_model_have_the_teachers_own_prompt(engine):
    recipe = RECIPE.changed(with_passage=1, unrelated=2)
    (document,) = distilled(engine, recipe, [(TEXT, [BY_RULE])])
    about, beside, *unrelated = document.examples
    told = prompt_ids(TOKENIZER, BY_RULE.question, [TEXT])
    assert not about.keeps
    assert list(beside.ids[: beside.counted_from]) == told
    assert len(unrelated) == 2
    assert all(e.keeps for e in (beside, *unrelated))
    assert not any("bridge" in TOKENIZER.decode(e.ids[: e.counted_from]) for e in unrelated)
    (again,) = distilled(engine, recipe, [(TEXT, [BY_RULE])])
    assert [e.ids for e in again.examples] == [e.ids for e in document.examples]


def test_each_passage_gets_its_own_sequences_and_the_progress_stays_within_one(engine):
    parts = []
    documents = distilled(
        engine, RECIPE, [(TEXT, [BY_RULE, BY_MODEL]), ("A river.", [BY_RULE])], advance=parts.append, tokens_at_once=1
    )
    assert [(d.text, len(d.examples)) for d in documents] == [(TEXT, 2), ("A river.", 1)]
    assert parts
    assert sum(parts) <= 1 + 1e-6


def test_the_models_own_answers_are_taught_to_itself(engine):
    prompts = [prompt_ids(TOKENIZER, question) for question in ("Who?", "When did the river rise?")]
    examples = taught(engine, prompts)
    assert [list(e.ids[: e.counted_from]) for e in examples] == prompts
    assert all(e.keeps for e in examples)
