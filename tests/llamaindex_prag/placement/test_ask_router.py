"""Tests of asking every adapter, against a loop over documents with dense updates and no cache."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.errors import AdapterMissingError
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.ask_router import AskedAdapters, AskRouter
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.made import random_values, with_update

QUESTION = "Who built the bridge?"
TEXTS = [f"text {i}" for i in range(4)]
SCALE = 2.0


@pytest.fixture(params=["prompt", "answer"])
def model(request, lm, store):
    recipe = get_recipe("distill", rank=2, layers=None, acts_from=request.param)
    made = ParametricModel(lm, store, recipe=recipe, max_adapters=2, slots=8).attach()
    for i, text in enumerate(TEXTS):
        buffer = random_values(made.layout, i, 0.05 * (i + 1))
        store.put(made.key(text), Adapter(made.layout, buffer, SCALE), {})
    return made


def logprobs(model, ids, update, start):
    """One forward pass over all tokens; with late adapters, the tokens before `start` are the base model's."""
    changed = with_update(model.lm.model, model.layout, [(update, SCALE)])
    with torch.inference_mode():
        if start == 0:
            return changed(torch.tensor([ids])).logits[0].log_softmax(-1)
        before = model.lm.model(torch.tensor([ids[:start]]), use_cache=True).past_key_values
        return changed(torch.tensor([ids[start:]]), past_key_values=before).logits[0].log_softmax(-1)


def by_definition(model, update, tokens):
    prompt = prompt_ids(model.lm.tokenizer, QUESTION)
    start = len(prompt) - 1 if model.recipe.acts_from == "answer" else 0
    answer, gain = [], 0.0
    while len(answer) < tokens:
        row = logprobs(model, prompt + answer, update, start)[-1]
        token = int(row.argmax())
        if token in model.lm.engine.end_ids:
            break
        answer.append(token)
        gain += float(row[token])
    with torch.inference_mode():
        base = model.lm.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return answer, gain - sum(float(base[len(prompt) - 1 + i, t]) for i, t in enumerate(answer))


def test_answers_and_gains_are_those_of_each_document_alone(model):
    asked = AskedAdapters(model, tokens=6)
    found = asked.answers(QUESTION, [model.key(text) for text in TEXTS])
    for text, answer in zip(TEXTS, found, strict=True):
        update = np.empty(model.layout.size, np.float32)
        model.store.read_into(model.key(text), update)
        ids, gain = by_definition(model, update, 6)
        assert answer.gain == pytest.approx(gain, abs=2e-3)
        # The engine leaves out bytes at the end that are no whole character.
        assert clean_answer(model.lm.tokenizer.decode(ids)).startswith(answer.text)
    assert len({answer.text for answer in found}) > 1


def test_more_documents_than_a_call_may_merge_can_be_asked(model):
    assert len(AskedAdapters(model).answers(QUESTION, [model.key(text) for text in TEXTS])) == 4


def test_the_same_question_is_asked_once(model):
    asked, keys = AskedAdapters(model, tokens=4), [model.key(text) for text in TEXTS]
    first = asked.answers(QUESTION, keys)
    forwards = model.lm.engine.counts.forwards
    assert asked.answers(QUESTION, keys) is first
    assert model.lm.engine.counts.forwards == forwards
    model.store.put(keys[0], Adapter(model.layout, random_values(model.layout, 9), SCALE), {})
    assert asked.answers(QUESTION, keys) != first  # an adapter was replaced


def routed(model, keys, **options):
    candidates = [Candidate(f"c{i}", f"text {i}", score=1.0 - i / 10) for i in range(len(keys))]
    return AskRouter(AskedAdapters(model, tokens=4), **options).scores(QUESTION, candidates, keys)


def test_passages_without_an_adapter_are_not_asked_and_equal_texts_are_asked_once(model):
    keys = [None, model.key(TEXTS[3]), model.key(TEXTS[1]), model.key(TEXTS[3])]
    found = routed(model, keys)
    assert found.scores[0] is None
    assert found.answers[0] is None
    assert found.scores[1] == found.scores[3]
    assert found.scores[1] != found.scores[2]
    assert found.answers[1]
    assert not found.refused


def test_no_adapter_acts_if_none_gains_enough(model):
    keys = [model.key(text) for text in TEXTS]
    best = max(routed(model, keys).scores)
    found = routed(model, keys, bound=best + 1)
    assert "no adapter answers" in found.refused
    assert f"the best gains {best:.2g}" in found.refused
    assert not routed(model, keys, bound=best - 0.01).refused


def test_without_question_or_adapters_the_retrieval_scores_remain(model):
    assert routed(model, [None, None]).scores == (1.0, 0.9)
    router = AskRouter(AskedAdapters(model))
    assert router.scores(" ", [Candidate("c", "text", score=0.5)], [model.key(TEXTS[0])]).scores == (0.5,)


def test_bad_arguments_and_missing_adapters_are_refused(model):
    with pytest.raises(ConfigurationError, match="tokens is 0"):
        AskedAdapters(model, tokens=0)
    with pytest.raises(ConfigurationError, match="bound is -1"):
        AskRouter(AskedAdapters(model), bound=-1)
    with pytest.raises(ConfigurationError, match="adapters can only be asked a question"):
        AskedAdapters(model).answers(" ", [model.key(TEXTS[0])])
    with pytest.raises(AdapterMissingError):
        AskedAdapters(model).answers(QUESTION, [model.key("never trained")])
