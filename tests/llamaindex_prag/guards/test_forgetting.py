"""Forgetting on unrelated answers: measured by the formula, and kept within a bound."""

import numpy as np
import pytest
import torch

from llamaindex_prag.guards.forgetting import ForgettingGuard
from llamaindex_prag.prompts import prompt_ids
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.made import random_model, random_values, with_update

PROBES = ("Who wrote a letter?", "When did the river rose?")


@pytest.fixture
def model(tmp_path):
    with random_model(tmp_path, 0.05) as made:
        yield made


def selection(model, *numbers, **options):
    return model.select([model.key(f"text {i}") for i in numbers], **options)


def guard(model, **options):
    return ForgettingGuard(model, **{"probes": PROBES, **options})


def test_forgetting_is_the_divergence_on_the_base_models_answers(model):
    values = [random_values(model.layout, i, 0.05) for i in (0, 1)]
    changed = with_update(model.lm.model, model.layout, [(v, 2.0 / 2) for v in values])
    divergences = []
    for probe in PROBES:
        ids = prompt_ids(model.lm.tokenizer, probe)
        said = model.lm.engine.generate(Request(ids, 48))
        answer = said.token_ids + ([model.lm.tokenizer.eos_token_id] if said.finish_reason == "eos" else [])
        whole = torch.tensor([[*ids, *answer]])
        with torch.no_grad():
            p, q = (
                m(input_ids=whole).logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
                for m in (model.lm.model, changed)
            )
        p, q = p.numpy(), q.numpy()
        top = np.argsort(-p, 1)[:, :64]  # the rest counts as one outcome, as in the recipe's own loss
        a, b = np.take_along_axis(p, top, 1), np.take_along_axis(q, top, 1)
        rest_a, rest_b = 1 - np.exp(a).sum(1), 1 - np.exp(b).sum(1)
        divergences += list((np.exp(a) * (a - b)).sum(1) + rest_a * (np.log(rest_a) - np.log(rest_b)))
    found = guard(model).forgetting(selection(model, 0, 1))
    assert found == pytest.approx(float(np.mean(divergences)), rel=1e-2)


def test_a_selection_that_forgets_too_much_is_weakened_just_enough(model):
    strong = selection(model, 0, strength=2.0)
    watched = guard(model, bound=0.02)
    before = watched.forgetting(strong)
    assert before > 0.02
    found = watched.guarded(strong)
    assert found.unguarded == before
    assert found.forgetting <= 0.02
    assert found.forgetting == pytest.approx(watched.forgetting(found.selection))
    assert found.selection.weights == pytest.approx([2.0 * found.part])
    assert found.forgetting > 0.005  # and not much weaker than necessary


def test_a_selection_within_the_bound_is_unchanged(model):
    weak = selection(model, 1, strength=1e-3)
    found = guard(model).guarded(weak)
    assert (found.selection, found.part) == (weak, 1.0)


def test_a_selection_that_forgets_at_any_strength_is_left_to_the_prompt(model):
    found = guard(model, bound=1e-7, least=0.5).guarded(selection(model, 0, 1, 2, strength=3.0))
    assert found.selection is None
    assert found.part == 0.5


def test_a_selection_is_measured_once(model, monkeypatch):
    watched = guard(model)
    watched.forgetting(selection(model, 0))
    forwards = []
    monkeypatch.setattr(watched, "_measure", lambda s: forwards.append(s) or 0.0)
    watched.forgetting(selection(model, 0))
    watched.forgetting(selection(model, 0, strength=0.5))
    assert len(forwards) == 1


def test_the_base_model_is_unchanged(model):
    ids = prompt_ids(model.lm.tokenizer, "Who?")
    before = model.lm.engine.generate(Request(ids, 8)).token_ids
    guard(model).guarded(selection(model, 0, 1))
    assert model.lm.engine.generate(Request(ids, 8)).token_ids == before


@pytest.mark.parametrize(
    "options", [{"bound": 0.0}, {"bound": float("nan")}, {"probes": ()}, {"probes": ("",)}, {"least": 0.0}]
)
def test_impossible_options_are_refused(model, options):
    with pytest.raises(ConfigurationError):
        guard(model, **options)
