"""Questions by rule are kept if the model, with the passage in its prompt, finds their answer likely."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.recipe import ALORA, DISTILL, Recipe, get_recipe
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.training.consistency import LEAST, chosen, consistent
from llamaindex_prag.training.distillation import distilled
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_llama, tiny_tokenizer

TEXT = (
    "The bridge of Arl was built by the engineer Maud Kray in 1954. It crosses the river Senn on nine arches and "
    "carries the railway from Lusk to Dunmore. The flood of 1961 took two of them, which were rebuilt in concrete."
)
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_llama(), TOKENIZER)


def likelihood(engine, qa):
    """Run one whole sequence, and return the geometric mean of the probabilities of the answer and the end."""
    prompt = prompt_ids(TOKENIZER, qa.question, [TEXT])
    answer = [*answer_ids(TOKENIZER, qa.answer), TOKENIZER.eos_token_id]
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().numpy()
    shares = [np.exp(logits[len(prompt) - 1 + i] - np.max(logits[len(prompt) - 1 + i])) for i in range(len(answer))]
    return math.prod(float(share[token] / share.sum()) for share, token in zip(shares, answer, strict=True)) ** (
        1 / len(answer)
    )


def test_the_questions_kept_are_those_whose_answers_are_likely_with_the_passage_in_the_prompt(engine):
    asked = rule_questions(TEXT, 100, title="Bridge of Arl")
    likely = [likelihood(engine, qa) for qa in asked]
    bound = sum(sorted(likely)[-41:-39]) / 2
    recipe = DISTILL.changed(consistency=bound, phrases=100)
    ((text, kept),) = consistent(engine, recipe, [(TEXT, asked)], tokens_at_once=512)
    assert text == TEXT
    assert kept == [qa for qa, p in zip(asked, likely, strict=True) if p > bound]
    assert len(kept) == 40


def test_several_documents_are_kept_apart_and_questions_of_other_sources_are_not_tested(engine):
    own = [QA("Who painted it?", "a monk", source=source) for source in ("given", "model")]
    asked = rule_questions(TEXT, 60)
    recipe = DISTILL.changed(consistency=0.999, phrases=30)
    one, other = consistent(engine, recipe, [(TEXT, [*own, *asked]), ("Nothing.", [*own])], tokens_at_once=512)
    assert one[1][:2] == own
    assert len(one[1]) == 2 + 30  # none is consistent: the likeliest
    assert set(one[1][2:]) < set(asked)
    assert other == ("Nothing.", own)
    none = DISTILL.changed(phrases=30)
    assert consistent(engine, none, [(TEXT, asked)]) == [(TEXT, asked)]


def test_a_long_passage_is_read_once_for_many_questions_and_alone_or_in_a_group_it_keeps_the_same(engine):
    long = " ".join([TEXT] * 6)
    asked = rule_questions(TEXT, 60)
    recipe = DISTILL.changed(consistency=0.9, phrases=30)
    passes = []
    alone = consistent(engine, recipe, [(long, asked)], tokens_at_once=1024, advance=passes.append)
    assert len(passes) < 10
    assert sum(passes) == pytest.approx(1)
    assert consistent(engine, recipe, [(TEXT, asked), (long, asked)])[1:] == alone


@given(st.lists(st.floats(0, 1), max_size=80), st.floats(0.01, 0.99), st.integers(1, 64))
def test_no_consistent_question_gives_way_to_another(likely, bound, most):
    kept = chosen(likely, bound, most)
    consistent_ones = {i for i, p in enumerate(likely) if p >= bound}
    assert kept == sorted(set(kept))
    enough = len(consistent_ones) >= LEAST
    assert len(kept) == min(len(consistent_ones) if enough else len(likely), most)
    assert set(kept) <= consistent_ones or not enough
    assert consistent_ones <= set(kept) or len(kept) == most


def test_chosen_by_hand():
    likely = [0.9, 0.1, 0.2, 0.0]
    assert chosen(likely, 0.5, 3) == [0, 1, 2]  # too few are consistent: the likeliest
    assert chosen(likely * LEAST, 0.5, 3) == [0, 4, 8]  # enough are: the first
    assert chosen(likely * LEAST, 0.5, 64) == list(range(0, 4 * LEAST, 4))
    assert chosen([], 0.5, 3) == []


def test_training_sequences_are_of_the_questions_kept_and_progress_adds_up(engine):
    recipe = DISTILL.changed(consistency=0.999, phrases=10, unrelated=1, with_passage=1)
    asked = rule_questions(TEXT, recipe.candidates)
    ticks = []
    (document,) = distilled(engine, recipe, [(TEXT, asked)], advance=ticks.append)
    assert (len(document.examples), document.left_out) == (12, len(asked) - 10)
    prompts = {tuple(prompt_ids(TOKENIZER, qa.question)) for qa in asked}
    assert sum(e.ids[: e.counted_from] in prompts for e in document.examples) == 10
    assert 0.9 < sum(ticks) <= 1 + 1e-9


def test_a_recipe_without_it_has_the_key_it_had_and_refuses_what_cannot_be():
    assert "consistency" not in DISTILL.to_dict()
    assert (DISTILL.candidates, DISTILL.changed(consistency=0.5).candidates) == (64, 256)
    assert ALORA.consistency is not None
    assert Recipe.from_dict(ALORA.to_dict()) == ALORA
    for value in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigurationError, match=f"consistency is {value}; it must be between 0 and 1, or None"):
            get_recipe("alora", consistency=value)
    with pytest.raises(ConfigurationError, match="consistency is 0.5, but phrases is 0"):
        get_recipe("alora", consistency=0.5, phrases=0, questions=8)
    with pytest.raises(ConfigurationError, match="consistency is 0.5, but objective='next_token'"):
        get_recipe("prag", consistency=0.5)
