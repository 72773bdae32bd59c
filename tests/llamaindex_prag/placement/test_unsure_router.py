"""Tests of leaving a question to the base model where it is sure: against a plain greedy loop over the whole prompt."""

import math

import pytest
import torch

from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.ask_router import ANSWER_TOKENS
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.lexical_router import LexicalRouter
from llamaindex_prag.placement.unsure_router import UnsureRouter, own_answer
from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.errors import ConfigurationError

QUESTION = "Who built the bridge?"
CANDIDATES = [Candidate(str(i), f"The bridge {i} was built by Bo.", score=1.0 - i) for i in range(3)]


@pytest.fixture
def model(lm, store):
    return ParametricModel(lm, store, recipe="distill").attach()


def by_definition(model):
    """Return the greedy answer without a passage, and the logarithm of its probability."""
    prompt, answer, total = prompt_ids(model.lm.tokenizer, QUESTION), [], 0.0
    while len(answer) < ANSWER_TOKENS:
        with torch.inference_mode():
            row = model.lm.model(torch.tensor([prompt + answer])).logits[0, -1].log_softmax(-1)
        if (token := int(row.argmax())) in model.lm.engine.end_ids:
            break
        answer.append(token)
        total += float(row[token])
    return answer, total


def test_the_answer_and_its_probability_are_those_of_a_plain_greedy_loop(model):
    ids, total = by_definition(model)
    text, probability = own_answer(model, QUESTION, math.exp(total - 1e-3))
    assert math.log(probability) == pytest.approx(total, abs=1e-3)
    assert clean_answer(model.lm.tokenizer.decode(ids)).startswith(text)
    assert own_answer(model, QUESTION, math.exp(total + 1e-3)) is None


def test_generation_ends_at_the_token_that_takes_the_probability_below_the_bound(model):
    before = model.lm.engine.counts.forwards
    assert own_answer(model, QUESTION, 1.0) is None
    assert model.lm.engine.counts.forwards - before <= 3  # the prompt, and the token under way
    assert len(by_definition(model)[0]) > 3


def test_the_other_routers_scores_are_kept_and_refused_where_the_model_is_sure(model):
    _, total = by_definition(model)
    plain = LexicalRouter(bound=0).scores(QUESTION, CANDIDATES, [None] * 3)
    sure = UnsureRouter(LexicalRouter(bound=0), model, bound=math.exp(total - 1e-3))
    unsure = UnsureRouter(LexicalRouter(bound=0), model, bound=math.exp(total + 1e-3))
    found = sure.scores(QUESTION, CANDIDATES, [None] * 3)
    assert found.scores == plain.scores
    assert "the model is sure of its own answer" in found.refused
    assert unsure.scores(QUESTION, CANDIDATES, [None] * 3) == plain


def test_what_another_router_refuses_or_no_question_asks_is_not_answered(model):
    router = UnsureRouter(LexicalRouter(bound=1), model, bound=1e-30)
    before = model.lm.engine.counts.forwards
    assert "by their common words" in router.scores(QUESTION, CANDIDATES, [None] * 3).refused
    assert model.lm.engine.counts.forwards == before


def test_a_bound_that_is_no_probability_is_refused(model):
    for bound in (0.0, -1.0, 1.5):
        with pytest.raises(ConfigurationError, match=f"bound is {bound}; it is a probability, above 0 and at most 1"):
            UnsureRouter(LexicalRouter(), model, bound=bound)
