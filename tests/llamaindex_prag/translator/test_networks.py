"""Compares what the networks compute with the formulas written out."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL, PRAG
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.document_reader import DocumentReader
from llamaindex_prag.translator.networks.dyprag import DyPRAGNetwork
from llamaindex_prag.translator.networks.module_positions import ModulePosition, module_positions
from llamaindex_prag.translator.networks.shared import SharedNetwork
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer


def tiny_lm(make=tiny_llama) -> CausalLM:
    return CausalLM(make(), tiny_tokenizer(), name="tiny")


def shared_config(lm, **changes) -> TranslatorConfig:
    return TranslatorConfig.of(lm, "shared", width=16, tokens=3, heads=2, **changes)


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


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_gemma3])
def test_document_states_equal_the_models_hidden_states_even_when_batched_or_read_in_pieces(make):
    lm = tiny_lm(make)
    texts = ["In 1954 the river rose.", "The bridge was built by an engineer, and nobody came back to the town." * 2]
    reader = DocumentReader(lm.engine, (0, 2, len(lm.model.get_decoder().layers)), window=24, tokens_at_once=60)
    for text, states in zip(texts, reader.states(texts), strict=True):
        ids = tiny_tokenizer()(text).input_ids
        expected = []
        for i in range(0, len(ids), 24):
            with torch.no_grad():
                found = lm.model(input_ids=torch.tensor([ids[i : i + 24]]), output_hidden_states=True).hidden_states
            expected.append(torch.stack([found[n][0] for n in (1, 3, len(found) - 1)], 1))
        assert states.shape[0] == len(ids)
        # transformers records the last layer's output after the norm, the reader before it.
        assert torch.allclose(states[:, [0, 2]], torch.cat(expected)[:, [0, 2]], atol=1e-4)


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


def test_module_positions_are_layer_numbers_and_names_within_the_layer():
    layout = layout_of(tiny_llama(), rank=1, layers=(1,))
    assert module_positions(layout) == [ModulePosition(1, f"mlp.{n}_proj") for n in ("gate", "up", "down")]


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("lora", {}, "kind is 'lora'"),
        ("dyprag", {"tokens": 2}, "reads one state"),
        ("dyprag", {"scaling": "none"}, "scaling is 'none'"),
        ("shared", {"scaling": "reference"}, "scaling is for kind='dyprag'"),
        ("shared", {"width": 30, "heads": 4}, "must be a multiple"),
        ("shared", {"tokens": 16, "width": 256}, "at most 4096"),
        ("shared", {"tokens": 0}, "tokens is 0"),
        ("shared", {"read_layers": ()}, "read_layers is"),
        ("shared", {"depth": 3}, "has no depth"),
    ],
)
def test_impossible_configurations_are_rejected_with_the_reason(kind, changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        TranslatorConfig.of(tiny_lm(), kind, **changes)


def test_layers_that_the_model_does_not_have_are_rejected():
    with pytest.raises(ConfigurationError, match="the model has 3 layers"):
        DocumentReader(tiny_lm().engine, (4,))


@pytest.mark.parametrize("recipe", [PRAG, DISTILL], ids=lambda r: r.name)
def test_a_configuration_survives_a_round_trip_through_plain_data(recipe):
    config = shared_config(tiny_lm(), recipe=recipe)
    assert TranslatorConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigurationError, match="has format 99"):
        TranslatorConfig.from_dict(config.to_dict() | {"format": 99})
