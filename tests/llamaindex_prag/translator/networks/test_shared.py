"""Compares what the shared network computes with the formulas written out."""

import numpy as np
import torch

from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.translator.document_reader import DocumentReader
from llamaindex_prag.translator.networks.shared import SharedNetwork
from tests.llamaindex_prag.translator.made import shared_config, tiny_lm


def test_gains_set_the_norms_of_the_shared_translators_rows():
    lm = tiny_lm()
    config = shared_config(lm)
    network = SharedNetwork(config)
    network.common.data.zero_()
    network.gains.data = torch.arange(1.0, 1.0 + network.gains.numel()).view_as(network.gains)
    (buffer,) = network.generate(torch.randn(1, 3, 16)).detach().numpy()
    for i, (_, a, b) in enumerate(config.layout.factors(buffer)):
        assert np.allclose(np.linalg.norm(a, axis=1), 2 * i + 1, rtol=1e-4)
        assert np.allclose(np.linalg.norm(b, axis=0), 2 * i + 2, rtol=1e-4)


def test_a_new_shared_translator_starts_near_the_recipes_initial_values():
    lm = tiny_lm()
    config = shared_config(lm)
    network = SharedNetwork(config)
    start = initial_values(config.layout, config.recipe.seed)
    made = network.generate(torch.randn(4, 3, 16))
    rows = config.layout.rank * len(config.layout.targets)
    assert torch.allclose((made - start).norm(dim=1), torch.tensor((rows * (0.3**2 + 1.0**2)) ** 0.5), rtol=1e-3)


def test_settle_subtracts_the_mean_state_and_reads_the_rest_with_equal_variance():
    lm = tiny_lm()
    config = shared_config(lm)
    network = SharedNetwork(config)
    states = DocumentReader(lm.engine, config.read_layers).states(
        [" ".join(f"{w} {i}" for i in range(40)) for w in "abcdef"]
    )
    tokens = torch.cat(states).numpy()
    levelled = tokens / np.sqrt((tokens**2).mean(-1, keepdims=True) + np.finfo(np.float32).eps)
    network.settle(states)
    assert np.allclose(network.usual, levelled.mean(0), atol=1e-5)
    first = network.read[0].weight.detach().numpy()
    read = (levelled[:, 0] - levelled[:, 0].mean(0)) @ first.T
    found = np.cov(read.T, bias=True)
    # Components with almost no variance stay small; all others have the same variance.
    assert np.allclose(found, np.diag(np.diag(found)), atol=1e-3)
    assert np.allclose(np.diag(found)[-4:], 1, atol=1e-3)
    down = network.heads_b[0].weight if network.heads_b[0].weight.shape[0] == config.hidden else None
    assert down is not None
    assert np.allclose(down.detach()[:, : len(first)].T @ down.detach()[:, : len(first)], np.eye(len(first)), atol=1e-4)


def test_the_adapter_of_a_document_does_not_depend_on_the_rest_of_the_batch():
    lm = tiny_lm()
    network = SharedNetwork(shared_config(lm))
    pooled = torch.randn(5, 3, 16)
    together = network.generate(pooled)
    assert torch.allclose(together[2:3], network.generate(pooled[2:3]), atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_every_weight_of_the_shared_translator_receives_a_gradient():
    lm = tiny_lm()
    network = SharedNetwork(shared_config(lm))
    for block in network.blocks:
        torch.nn.init.normal_(block.outer.weight)  # zero in a new block, whose inner weights then get no gradient
    states = DocumentReader(lm.engine, network_layers := shared_config(lm).read_layers).states(["A river.", "A town."])
    assert states[0].shape[1] == len(network_layers)
    made = network.generate(network.pool(states))
    made.backward(torch.randn(made.shape))
    idle = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())]
    assert idle == []
