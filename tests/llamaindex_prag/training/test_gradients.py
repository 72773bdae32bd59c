"""Losses of several documents and their gradients, compared with one dense model per document."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses, frozen
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_llama, tiny_tokenizer

SCALE = 1.5
EXAMPLES = {
    0: [Example((5, 6, 7, 8, 9), 2), Example((5, 6, 4, 3), 2)],  # they share a prefix
    2: [Example((9, 8, 7), 1)],
}


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_llama(), tiny_tokenizer())


@pytest.fixture(params=[None, (1, 2)], ids=["all layers", "upper layers"])
def layout(request, engine):
    return layout_of(engine.model, rank=2, layers=request.param)


@pytest.fixture
def factors(engine, layout):
    start = torch.from_numpy(np.stack([random_values(layout, i) for i in range(3)]))
    return DocumentFactors(engine.model, layout, start, 3, SCALE)


def dense(model, layout, values, examples):
    """Return one document's loss as a function of its values, with the update written out as W + s B A."""
    weights = dict(model.named_parameters())
    for target, a, b in zip(layout.targets, layout.a_offsets, layout.b_offsets, strict=True):
        down = values[a : a + layout.rank * target.inputs].view(layout.rank, -1)
        up = values[b : b + layout.rank * target.outputs].view(layout.rank, -1).T
        weights[f"{target.name}.weight"] = weights[f"{target.name}.weight"].detach() + SCALE * up @ down
    total = 0.0
    for e in examples:
        logits = torch.func.functional_call(model, weights, kwargs={"input_ids": torch.tensor([e.ids])}).logits[0]
        wanted = torch.tensor(e.ids[e.counted_from :])
        total = total + functional.cross_entropy(logits[e.counted_from - 1 : -1], wanted, reduction="sum")
    return total / sum(e.counted for e in examples)


@pytest.mark.parametrize("tokens", [1, 512])
def test_losses_and_gradients_are_those_of_each_document_alone(engine, layout, factors, tokens):
    losses = DocumentLosses(engine, layout, tokens_at_once=tokens)
    found = losses.backward(factors, EXAMPLES, {})
    assert found.keys() == EXAMPLES.keys()
    for document, examples in EXAMPLES.items():
        values = factors.values[document].clone().requires_grad_()
        loss = dense(engine.model, layout, values, examples)
        (gradient,) = torch.autograd.grad(loss, values)
        assert found[document] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert torch.allclose(factors.gradients[document], gradient, atol=1e-5, rtol=1e-3)
    assert not factors.gradients[1].any()
    assert losses.values(factors, EXAMPLES, {}) == pytest.approx(found, rel=1e-5)


def from_the_answer(model, layout, values, examples):
    """Return one document's loss; a hook adds s B A x to the layers' outputs at the tokens from the answer on."""
    total = 0.0
    for e in examples:
        acting = torch.zeros(1, len(e.ids), 1)
        acting[:, e.counted_from - 1 :] = 1
        hooks = []
        for target, a, b in zip(layout.targets, layout.a_offsets, layout.b_offsets, strict=True):
            down = values[a : a + layout.rank * target.inputs].view(layout.rank, -1)
            up = values[b : b + layout.rank * target.outputs].view(layout.rank, -1)

            def add(_module, inputs, out, down=down, up=up, acting=acting):
                return out + SCALE * acting * (inputs[0] @ down.T @ up)

            hooks.append(model.get_submodule(target.name).register_forward_hook(add))
        logits = model(input_ids=torch.tensor([e.ids])).logits[0]
        for hook in hooks:
            hook.remove()
        wanted = torch.tensor(e.ids[e.counted_from :])
        total = total + functional.cross_entropy(logits[e.counted_from - 1 : -1], wanted, reduction="sum")
    return total / sum(e.counted for e in examples)


@pytest.mark.parametrize("tokens", [1, 512])
def test_factors_that_act_from_the_answer_on_leave_the_prompt_to_the_base_model(engine, layout, factors, tokens):
    examples = {
        0: [Example((5, 6, 7, 8, 9, 11), 4), Example((5, 6, 7, 8, 4), 4), Example((5, 6, 4, 3), 3)],
        1: [Example((9, 8, 7), 1)],  # nothing comes before the answer but one token
    }
    losses = DocumentLosses(engine, layout, tokens_at_once=tokens, acts_from="answer")
    lower = losses.lower_states([e for group in examples.values() for e in group])
    found = losses.backward(factors, examples, lower)
    for document, of_document in examples.items():
        values = factors.values[document].clone().requires_grad_()
        loss = from_the_answer(engine.model, layout, values, of_document)
        (gradient,) = torch.autograd.grad(loss, values)
        assert found[document] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert torch.allclose(factors.gradients[document], gradient, atol=1e-5, rtol=1e-3)
    everywhere = DocumentLosses(engine, layout, tokens_at_once=tokens).values(factors, examples, {})
    assert abs(everywhere[0] - found[0]) > 1e-4
    assert everywhere[1] == pytest.approx(found[1], rel=1e-4)


def test_states_below_the_adapters_give_the_same_losses(engine, layout, factors):
    losses = DocumentLosses(engine, layout)
    examples = [e for of_document in EXAMPLES.values() for e in of_document]
    parts = []
    lower = losses.lower_states(examples, parts.append)
    assert len(lower) == (len(examples) if losses.first_adapted else 0)
    assert sum(parts) == pytest.approx(1.0 if losses.first_adapted else 0.0)
    assert losses.first_adapted == int(layout.targets[0].name.split(".")[2])
    without = losses.values(factors, EXAMPLES, {})
    assert losses.values(factors, EXAMPLES, lower) == pytest.approx(without, rel=1e-5)


def test_the_finished_fractions_of_the_work_add_up_to_one(engine, layout, factors):
    parts = []
    DocumentLosses(engine, layout, tokens_at_once=5).backward(factors, EXAMPLES, {}, parts.append)
    assert len(parts) > 1
    assert sum(parts) == pytest.approx(1.0)


def test_frozen_parameters_are_trainable_again_even_after_an_error():
    model = tiny_llama()
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        raise KeyError("stop")
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["lm_head.weight"]


def test_a_forward_pass_needs_room_for_a_token(engine, layout):
    with pytest.raises(ConfigurationError, match="tokens_at_once is 0; at least 1"):
        DocumentLosses(engine, layout, tokens_at_once=0)
