"""The factors of many documents on one model: initial values, each row's own document, and the optimiser."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.factors import AdamW, DocumentFactors, initial_values
from tests.llamaindex_prag.made import random_values, with_update
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def layout(model):
    return layout_of(model, rank=2)


def test_initial_a_is_bounded_by_its_inputs_and_b_is_zero(layout):
    values = initial_values(layout, seed=3)
    for target, a, b in layout.factors(values.numpy()):
        bound = target.inputs**-0.5
        assert 0.8 * bound < np.abs(a).max() <= bound
        assert not b.any()
    assert torch.equal(values, initial_values(layout, seed=3))
    assert not torch.equal(values, initial_values(layout, seed=4))


def test_each_row_uses_the_factors_of_its_own_document(model, layout):
    buffers = [random_values(layout, i) for i in range(2)]
    factors = DocumentFactors(model, layout, torch.from_numpy(np.stack(buffers)), 2, scale=1.5)
    ids = torch.tensor([[5, 9, 13], [6, 2, 8], [5, 9, 13]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with factors.on(torch.tensor([1, 0, 0])):
            found = model(input_ids=ids).logits
        for row, document in enumerate((1, 0, 0)):
            dense = with_update(model, layout, [(buffers[document], 1.5)])
            assert torch.allclose(found[row], dense(input_ids=ids[row : row + 1]).logits[0], atol=1e-4, rtol=1e-4)
        assert (found - before).abs().max() > 0.1
        assert torch.equal(model(input_ids=ids).logits, before)


def test_the_start_may_be_the_same_for_all_documents_and_is_copied(model, layout):
    start = initial_values(layout, 0)
    factors = DocumentFactors(model, layout, start, 3, scale=1.0)
    factors.values[1] += 1
    assert torch.equal(factors.values[0], start)
    assert torch.equal(factors.values[1], start + 1)


def test_the_optimiser_is_torchs_adamw_with_a_step_count_per_document(model, layout):
    start = torch.from_numpy(np.stack([random_values(layout, i) for i in range(2)]))
    options = {"weight_decay": 0.1, "eps": 1e-6}
    factors = DocumentFactors(model, layout, start, 2, scale=1.0)
    ours = AdamW(factors, 1e-2, 0.1, 1e-6)
    apart = [start[i].clone().requires_grad_() for i in range(2)]
    theirs = [torch.optim.AdamW([p], lr=1e-2, **options) for p in apart]
    generator = torch.Generator().manual_seed(0)
    for documents, parts in (([0, 1], None), ([1], None), ([0], [0.5]), ([0, 1], [0.25, 1.0])):
        gradients = torch.randn(2, layout.size, generator=generator)
        factors.gradients.copy_(gradients)
        ours.step(documents, parts)
        assert not factors.gradients.any()
        for document, part in zip(documents, parts or [1.0] * len(documents), strict=True):
            theirs[document].param_groups[0]["lr"] = 1e-2 * part
            apart[document].grad = gradients[document].clone()
            theirs[document].step()
    for document, expected in enumerate(apart):
        assert torch.allclose(factors.values[document], expected, atol=1e-6)
