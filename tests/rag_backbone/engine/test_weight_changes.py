"""A model whose weights are changed answers with the new ones; nothing computed with the old ones is reused."""

import pytest
import torch
from torch import nn

from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.weight_changes import WeightChanges
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPT = [5, 6, 7, 8, 9, 10]


def in_place(weight):
    with torch.no_grad():
        weight.mul_(1.5)


def through_data(weight):
    weight.data += 0.5


def other_memory(weight):
    weight.data = weight.data * 1.5


@pytest.mark.parametrize("change", [in_place, through_data, other_memory])
def test_changed_weights_are_detected_before_the_next_generation(change):
    model = tiny_llama()
    engine = Engine(model, tiny_tokenizer())
    before = engine.generate(Request(PROMPT, 8))
    change(model.model.layers[0].mlp.up_proj.weight)
    other = tiny_llama()
    other.load_state_dict(model.state_dict())
    expected = Engine(other, tiny_tokenizer()).generate(Request(PROMPT, 8))
    found = engine.generate(Request(PROMPT, 8))
    assert found.token_ids == expected.token_ids
    assert [s.logprob for s in found.steps] == pytest.approx([s.logprob for s in expected.steps], abs=1e-4)
    assert [s.logprob for s in found.steps] != pytest.approx([s.logprob for s in before.steps], abs=1e-4)
    assert found.counts.cached_tokens == 0  # the prompt's keys were computed with the old weights
    assert engine.generate(Request(PROMPT, 8)).counts.cached_tokens == len(PROMPT) - 1


def test_unchanged_weights_are_not_reported():
    changes = WeightChanges(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))
    assert [changes.found() for _ in range(3)] == [False] * 3


def test_a_model_without_linear_layers_never_reports_changes():
    assert not WeightChanges(nn.Sequential(nn.Embedding(4, 4))).found()
