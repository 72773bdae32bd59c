"""The layers below the adapted ones are run once per sequence."""

import numpy as np
import pytest

from llamaindex_prag.adapters.recipe import PRAG
from llamaindex_prag.adapters.targets import layout_of
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
