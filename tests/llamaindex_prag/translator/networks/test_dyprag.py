"""DyPRAG's network computes the published formula."""

import numpy as np
import torch

from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.document_reader import DocumentReader
from llamaindex_prag.translator.networks.dyprag import DyPRAGNetwork
from tests.llamaindex_prag.translator.made import tiny_lm
from tests.tiny import tiny_tokenizer


def test_dyprag_has_two_matrices_per_factor_and_layer():
    lm = tiny_lm()
    config = TranslatorConfig.of(lm, "dyprag", width=5)
    network = DyPRAGNetwork(config)
    for parameter in network.parameters():
        parameter.data.normal_()
    state = torch.randn(2, 1, config.hidden)
    found = network.generate(state).detach().numpy()
    weights = {n: p.detach().double().numpy() for n, p in network.named_parameters()}
    for document in range(2):
        for i, (target, a, b) in enumerate(config.layout.factors(found[document])):
            layer = float(target.name.split(".")[2])
            entered = np.append(state[document, 0].double().numpy(), layer)
            inner = np.maximum(weights["first_a"][i] @ entered, 0)
            assert np.allclose(a, (weights[f"second_a.{i}"] @ inner).reshape(2, target.inputs), rtol=1e-3, atol=1e-3)
            inner = np.maximum(weights["first_b"][i] @ entered, 0)
            assert np.allclose(b, (weights[f"second_b.{i}"] @ inner).reshape(target.outputs, 2), rtol=1e-3, atol=1e-3)


def test_dyprag_has_the_parameter_count_and_settings_of_the_paper():
    lm = tiny_lm()
    config = TranslatorConfig.of(lm, "dyprag")
    layers, hidden, wide = 3, 32, 48
    p, r = 32, 2
    expected = 3 * layers * (2 * p * (hidden + 1) + p * r * (hidden + wide))
    assert sum(v.numel() for v in DyPRAGNetwork(config).parameters()) == expected
    assert (config.width, config.layout.rank, config.scale) == (32, 2, 16.0)
    assert TranslatorConfig.of(lm, "dyprag", scaling="reference").scale == 1.0


def test_dyprag_reads_the_final_state_of_the_last_token():
    lm = tiny_lm()
    config = TranslatorConfig.of(lm, "dyprag")
    states = DocumentReader(lm.engine, config.read_layers).states(["A river.", "The town moved to higher ground."])
    for text, pooled in zip(
        ["A river.", "The town moved to higher ground."], DyPRAGNetwork(config).pool(states), strict=True
    ):
        ids = torch.tensor([tiny_tokenizer()(text).input_ids])
        with torch.no_grad():
            expected = lm.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
        assert torch.allclose(pooled[0], expected, atol=1e-5)
