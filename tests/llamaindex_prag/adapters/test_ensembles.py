"""Ensembles of documents, against a loop over documents with dense updates, and the weights of their members."""

import math

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.ensembles import ensemble_of, softmax
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.prompts import clean_answer, prompt_ids
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import keys, random_values, with_update
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTION = "Who built the bridge?"
TEXTS = [f"text {i}" for i in range(3)]
SCORES = [0.9, 0.1, 0.4]
SCALE = 2.0


@pytest.fixture(params=["prompt", "answer"])
def adapted(request, tmp_path):
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    recipe = get_recipe("distill", rank=2, layers=None, acts_from=request.param)
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:
        made = ParametricModel(lm, store, recipe=recipe, max_adapters=3).attach()
        for i, text in enumerate(TEXTS):
            store.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, 0.1), SCALE), {})
        yield made


def by_definition(model, kind, weights, tokens, strength):
    """One document after the other, without a cache, on the whole vocabulary in float64."""
    prompt, answer = prompt_ids(model.lm.tokenizer, QUESTION), []
    start = len(prompt) - 1 if model.recipe.acts_from == "answer" else 0
    changed = []
    for text in TEXTS:
        update = np.empty(model.layout.size, np.float32)
        model.store.read_into(model.key(text), update)
        changed.append(with_update(model.lm.model, model.layout, [(update, strength * SCALE)]))
    while len(answer) < tokens:
        ids, mixed = prompt + answer, 0.0
        for one, weight in zip(changed, weights, strict=True):
            with torch.inference_mode():
                before = model.lm.model(torch.tensor([ids[:start]])).past_key_values if start else None
                logits = one(torch.tensor([ids[start:]]), past_key_values=before).logits[0, -1].double().numpy()
            p = np.exp(logits - logits.max())
            p /= p.sum()
            mixed = mixed + weight * (p if kind == "mixture" else np.log(p))
        token = int(np.argmax(mixed))
        if token in model.lm.engine.end_ids:
            break
        answer.append(token)
    return answer


@pytest.mark.parametrize("scores", [None, SCORES])
@pytest.mark.parametrize("kind", ["mixture", "product"])
def test_an_ensemble_answers_as_a_loop_over_documents(adapted, kind, scores):
    raised = np.exp(np.array([0.0] * 3 if scores is None else scores))
    expected = by_definition(adapted, kind, raised / raised.sum(), 10, 0.5)
    made = adapted.ensemble([adapted.key(t) for t in TEXTS], kind=kind, scores=scores, strength=0.5)
    prompt = prompt_ids(adapted.lm.tokenizer, QUESTION)
    found = adapted.lm.engine.generate(Request(prompt, 10, adapters=made))
    assert found.token_ids == expected
    said = adapted.answer(QUESTION, documents=TEXTS, ensemble=kind, scores=scores, strength=0.5, max_new_tokens=10)
    assert said == clean_answer(found.text)


def test_an_ensemble_of_one_document_answers_as_its_adapter(adapted):
    for kind in ("mixture", "product"):
        assert adapted.answer(QUESTION, documents=TEXTS[:1], ensemble=kind) == adapted.answer(
            QUESTION, documents=TEXTS[:1]
        )
    assert adapted.answer(QUESTION, ensemble="mixture") == adapted.answer(QUESTION)


def test_weights_are_the_softmax_of_the_scores():
    assert softmax([1.0, 2.0, 0.0]) == pytest.approx(np.exp([1, 2, 0]) / np.exp([1, 2, 0]).sum())
    assert softmax([1000.0, 1000.0]) == (0.5, 0.5)
    selection = ActiveAdapters.of(keys("a", "b"), merge="sum", strength=[1.0, 0.5])
    made = ensemble_of(selection, keys("a", "b"), scores=[0.0, math.log(3)])
    assert made.weights == pytest.approx((0.25, 0.75))
    assert [(one.keys, one.weights) for one in made.members] == [
        ((keys("a")[0],), (1.0,)),
        ((keys("b")[0],), (0.5,)),
    ]
    assert ensemble_of(selection, keys("a", "b")).weights == (0.5, 0.5)


def test_of_a_repeated_document_the_highest_score_counts():
    given = keys("a", "b", "a")
    made = ensemble_of(ActiveAdapters.of(given, merge="sum"), given, scores=[-5.0, 0.0, 0.0])
    assert made.weights == (0.5, 0.5)


def test_a_document_without_weight_is_not_computed():
    made = ensemble_of(ActiveAdapters.of(keys("a", "b"), merge="sum"), keys("a", "b"), scores=[0.0, 900.0])
    assert [one.keys for one in made.members] == [(keys("b")[0],)]


@pytest.mark.parametrize("scores", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_scores_that_do_not_fit_are_refused(scores):
    with pytest.raises(AdapterError, match="give a finite one per adapter"):
        ensemble_of(ActiveAdapters.of(keys("a", "b"), merge="sum"), keys("a", "b"), scores=scores)


def test_what_an_ensemble_cannot_do_is_refused_by_name(adapted):
    with pytest.raises(ConfigurationError, match="ensemble is 'average'; known: mixture, product"):
        adapted.answer(QUESTION, documents=TEXTS, ensemble="average")
    with pytest.raises(AdapterError, match="room for 3"):
        adapted.answer(QUESTION, documents=[*TEXTS, "text 3"], ensemble="mixture")
