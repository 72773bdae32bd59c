"""What the networks compute, against the formulas written out."""

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


def test_dyprag_is_two_matrices_for_each_factor_of_each_layer():
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


def test_dyprag_has_the_papers_number_of_parameters_and_settings():
    lm = tiny_lm()
    config = TranslatorConfig.of(lm, "dyprag")
    layers, hidden, wide = 3, 32, 48
    p, r = 32, 2
    expected = 3 * layers * (2 * p * (hidden + 1) + p * r * (hidden + wide))
    assert sum(v.numel() for v in DyPRAGNetwork(config).parameters()) == expected
    assert (config.width, config.layout.rank, config.scale) == (32, 2, 16.0)
    assert TranslatorConfig.of(lm, "dyprag", scaling="reference").scale == 1.0


def test_dyprag_reads_the_last_tokens_final_state():
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
def test_states_are_the_models_whatever_is_read_together_and_long_texts_are_read_in_pieces(make):
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
        # The library's own record of the last layer's output comes after the norm, ours before it.
        assert torch.allclose(states[:, [0, 2]], torch.cat(expected)[:, [0, 2]], atol=1e-4)


def test_rows_of_the_shared_translator_are_as_long_as_their_gains_say():
    lm = tiny_lm()
    config = shared_config(lm)
    network = SharedNetwork(config)
    network.common.data.zero_()
    network.gains.data = torch.arange(1.0, 1.0 + network.gains.numel()).view_as(network.gains)
    (buffer,) = network.generate(torch.randn(1, 3, 16)).detach().numpy()
    for i, (_, a, b) in enumerate(config.layout.factors(buffer)):
        assert np.allclose(np.linalg.norm(a, axis=1), 2 * i + 1, rtol=1e-4)
        assert np.allclose(np.linalg.norm(b, axis=0), 2 * i + 2, rtol=1e-4)


def test_a_new_shared_translator_starts_near_the_recipes_own_start():
    lm = tiny_lm()
    config = shared_config(lm)
    network = SharedNetwork(config)
    start = initial_values(config.layout, config.recipe.seed)
    made = network.generate(torch.randn(4, 3, 16))
    rows = config.layout.rank * len(config.layout.targets)
    assert torch.allclose((made - start).norm(dim=1), torch.tensor((rows * (0.3**2 + 1.0**2)) ** 0.5), rtol=1e-3)


def test_what_states_have_in_common_is_taken_from_them_and_the_rest_is_read_evenly():
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
    # Components with next to no variance stay small; the others have the same.
    assert np.allclose(found, np.diag(np.diag(found)), atol=1e-3)
    assert np.allclose(np.diag(found)[-4:], 1, atol=1e-3)
    down = network.heads_b[0].weight if network.heads_b[0].weight.shape[0] == config.hidden else None
    assert down is not None
    assert np.allclose(down.detach()[:, : len(first)].T @ down.detach()[:, : len(first)], np.eye(len(first)), atol=1e-4)


def test_what_a_document_gets_does_not_depend_on_the_others():
    lm = tiny_lm()
    network = SharedNetwork(shared_config(lm))
    pooled = torch.randn(5, 3, 16)
    together = network.generate(pooled)
    assert torch.allclose(together[2:3], network.generate(pooled[2:3]), atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_every_weight_of_the_shared_translator_is_reached_by_a_gradient():
    lm = tiny_lm()
    network = SharedNetwork(shared_config(lm))
    for block in network.blocks:
        torch.nn.init.normal_(block.outer.weight)  # zero in a new one, which keeps its block idle for a step
    states = DocumentReader(lm.engine, network_layers := shared_config(lm).read_layers).states(["A river.", "A town."])
    assert states[0].shape[1] == len(network_layers)
    made = network.generate(network.pool(states))
    made.backward(torch.randn(made.shape))
    idle = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())]
    assert idle == []


def test_places_are_numbers_of_layers_and_names_within_them():
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
def test_what_cannot_be_is_refused_with_the_reason(kind, changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        TranslatorConfig.of(tiny_lm(), kind, **changes)


def test_layers_that_the_model_has_not_are_refused():
    with pytest.raises(ConfigurationError, match="the model has 3 layers"):
        DocumentReader(tiny_lm().engine, (4,))


@pytest.mark.parametrize("recipe", [PRAG, DISTILL], ids=lambda r: r.name)
def test_a_form_comes_back_from_plain_data(recipe):
    config = shared_config(tiny_lm(), recipe=recipe)
    assert TranslatorConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigurationError, match="has format 99"):
        TranslatorConfig.from_dict(config.to_dict() | {"format": 99})
