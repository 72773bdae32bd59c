"""The layers below the adapted ones are run once per sequence."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.recipe import PRAG
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.lower_layers import LowerLayers
from llamaindex_prag.training.packs import packs_of, rows_of
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.engine.engine import Engine
from tests.llamaindex_prag.training.documents import random_document
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("layers", [(0,), (1,), (-1,)])
def test_computing_the_layers_below_the_adapters_once_does_not_change_the_result(layers):
    model = tiny_llama()
    recipe = PRAG.changed(epochs=3, batch_size=2, layers=layers)
    layout = layout_of(model, rank=2, layers=layers)
    documents = [random_document(i, 3) for i in range(3)]
    trainer = Trainer(Engine(model, tiny_tokenizer()), layout, recipe)
    spared = {t.document.text: t.adapter.buffer for t in trainer.train(documents)}
    assert trainer._losses._lower.count == layers[0] % model.config.num_hidden_layers
    trainer._losses._lower.count = 0
    for trained in trainer.train(documents):
        assert np.abs(trained.adapter.buffer - spared[trained.document.text]).max() < 1e-4


def rows(*sequences):
    return rows_of(packs_of([Example(ids, 1) for ids in sequences], 100), 0, torch.device("cpu"))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_layers_below_the_first_adapted_one_can_be_skipped(first):
    model = tiny_llama()
    lower = LowerLayers(model, layout_of(model, rank=2, layers=(first, 2)))
    assert lower.count == first
    if first:
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([[5, 6, 7]]), output_hidden_states=True).hidden_states
        assert torch.allclose(lower.states(rows((5, 6, 7))), hidden[first], atol=1e-5)


def test_the_decoder_resumes_from_given_states_only_within_the_context():
    model = tiny_llama()
    lower, ids = LowerLayers(model, layout_of(model, rank=2, layers=(2,))), torch.tensor([[5, 6, 7]])
    other = lower.states(rows((9, 8, 7)))
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with lower.given(other):
            found = model(input_ids=ids).logits
        with lower.given(None):
            assert torch.equal(model(input_ids=ids).logits, before)
        assert torch.equal(model(input_ids=ids).logits, before)
        assert torch.allclose(found, model(input_ids=torch.tensor([[9, 8, 7]])).logits, atol=1e-4)
    assert not any("forward" in vars(m) for m in model.modules())
