"""Tests that adapters read nothing of what answers to general questions have in common."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL, get_recipe
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.null_space import NullSpace, general_answers, main_directions
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.training.documents import random_document
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_llama(), tiny_tokenizer())


@pytest.fixture(scope="module")
def layout(engine):
    return layout_of(engine.model, rank=2, layers=0.5)


@pytest.fixture(scope="module")
def null_space(engine, layout):
    return NullSpace.of(engine, layout, 0.8)


@pytest.mark.parametrize(("energy", "removed"), [(0.6, 1), (0.65, 2), (0.9, 2), (0.95, 3)])
def test_the_fewest_directions_that_hold_the_energy_are_removed(energy, removed):
    # Squared lengths 9, 4 and 1 of 14 in three directions that are not the axes: shares 0.64, 0.93 and 1.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    inputs = torch.from_numpy(np.diag([3.0, 2.0, 1.0]) @ turn).float()
    found = main_directions(inputs, energy)
    assert found.shape == (3, removed)
    torch.testing.assert_close(
        found @ found.T, torch.from_numpy(turn[:removed].T @ turn[:removed]).float(), atol=1e-5, rtol=1e-5
    )


def test_projecting_takes_the_directions_out_of_every_a_and_leaves_b(layout, null_space):
    before = np.stack([random_values(layout, i) for i in range(3)])
    values = torch.from_numpy(before.copy())
    null_space.project(values)
    for i in range(3):
        of_target = zip(layout.factors(values[i].numpy()), layout.factors(before[i]), strict=True)
        for ((_, a, b), (_, a_before, b_before)), columns in zip(of_target, null_space.directions, strict=True):
            v = columns.numpy()
            np.testing.assert_allclose(a, a_before @ (np.eye(len(v)) - v @ v.T), atol=1e-5)
            np.testing.assert_array_equal(b, b_before)


def test_the_directions_are_those_of_the_inputs_at_the_answers_of_sequences_run_alone(engine, layout, null_space):
    """Compare with one forward pass per sequence, and the eigenvectors of the inputs' second moment in NumPy."""
    target = layout.targets[0]
    kept = []
    module = engine.model.get_submodule(target.name)
    handle = module.register_forward_pre_hook(lambda _, given: kept.append(given[0][0].double().numpy()))
    moment = np.zeros((target.inputs, target.inputs))
    with torch.no_grad():
        for example in general_answers(engine.tokenizer):
            engine.model(torch.tensor([example.ids]))
            states = kept.pop()[example.counted_from - 1 : -1]
            moment += states.T @ states
    handle.remove()
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    removed = int((values.cumsum() / values.sum() < 0.8).sum()) + 1
    found = null_space.directions[0].double().numpy()
    assert found.shape == (target.inputs, removed)
    np.testing.assert_allclose(found @ found.T, vectors[:, :removed] @ vectors[:, :removed].T, atol=1e-2)


def test_a_trained_adapter_does_nothing_at_inputs_in_the_removed_directions(engine, layout, null_space):
    recipe = DISTILL.changed(rank=2, epochs=2, layers=0.5, acts_from="answer", null_space=0.8)
    plain = recipe.changed(null_space=None)
    (trained,) = Trainer(engine, layout, recipe).train([random_document(0, 4, teacher=True)])
    (free,) = Trainer(engine, layout, plain).train([random_document(0, 4, teacher=True)])
    for adapter, quiet in ((trained.adapter, True), (free.adapter, False)):
        for (_, a, b), columns in zip(layout.factors(adapter.buffer), null_space.directions, strict=True):
            assert np.abs(b).max() > 0
            assert bool(np.abs(a @ columns.numpy()).max() < 1e-5) is quiet


def test_an_engine_finds_the_directions_of_a_layout_once(engine, layout, null_space):
    assert NullSpace.of(engine, layout, 0.8) is null_space
    assert NullSpace.of(engine, layout, 0.7) is not null_space
    assert NullSpace.of(Engine(tiny_llama(), tiny_tokenizer()), layout, 0.8) is not null_space


def test_a_null_space_that_leaves_nothing_is_refused(engine, layout):
    with pytest.raises(ConfigurationError, match=r"null_space is 0.9999999, which leaves nothing of the \d+ inputs"):
        NullSpace.of(engine, layout, 0.9999999)


def test_general_questions_have_answers_and_are_the_same_each_time():
    examples = general_answers(tiny_tokenizer())
    assert len(examples) > 300
    assert all(e.counted >= 1 for e in examples)
    assert examples == general_answers(tiny_tokenizer())


def test_a_recipe_names_what_it_cannot_combine():
    with pytest.raises(ConfigurationError, match="null_space is 0.9, but adapters with acts_from='prompt'"):
        get_recipe("distill", null_space=0.9)
    with pytest.raises(ConfigurationError, match="null_space is 1.5; it must be between 0 and 1"):
        get_recipe("distill", acts_from="answer", null_space=1.5)
    with pytest.raises(ConfigurationError, match="documents start from the adapter abc"):
        get_recipe("distill", acts_from="answer", null_space=0.9, start="abc")
    late = get_recipe("distill", acts_from="answer")
    assert "null_space" not in late.to_dict()
    assert late.changed(null_space=0.9).key != late.key
