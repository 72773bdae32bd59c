"""Configurations of translators: defaults, limits, and their plain data."""

import pytest

from llamaindex_prag.adapters.recipe import DISTILL, PRAG
from llamaindex_prag.translator.config import TranslatorConfig
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.translator.made import shared_config, tiny_lm


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
        ("shared", {"recipe": DISTILL.changed(sampled_softmax=9)}, "sampled_softmax is 9, which the training of a"),
    ],
)
def test_impossible_configurations_are_rejected_with_the_reason(kind, changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        TranslatorConfig.of(tiny_lm(), kind, **changes)


@pytest.mark.parametrize("recipe", [PRAG, DISTILL], ids=lambda r: r.name)
def test_a_configuration_survives_a_round_trip_through_plain_data(recipe):
    config = shared_config(tiny_lm(), recipe=recipe)
    assert TranslatorConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigurationError, match="has format 99"):
        TranslatorConfig.from_dict(config.to_dict() | {"format": 99})
