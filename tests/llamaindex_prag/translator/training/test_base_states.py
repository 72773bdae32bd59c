"""The base model's states of passages and questions are the same whether they are computed or cached."""

import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.training.base_states import BaseStates
from llamaindex_prag.translator.training.state_cache import KeptStates
from llamaindex_prag.translator.translator import Translator

TEXTS = ["In 1954 the river rose.", "The town moved to higher ground."]
ASKED = {0: [Example((5, 6, 7), 1)], 3: [Example((8, 9), 1), Example((5, 6, 4), 2)]}


@pytest.fixture
def made(lm):
    recipe = DISTILL.changed(rank=2, layers=0.5)  # only the upper layers are adapted
    translator = Translator(lm, TranslatorConfig.of(lm, recipe=recipe, width=16, tokens=2, heads=2))
    return translator, DocumentLosses(lm.engine, translator.config.layout)


@pytest.fixture
def kept(lm, tmp_path):
    with KeptStates.for_model(tmp_path / "states", lm, gigabytes=0.01) as opened:
        yield opened


def test_cached_states_of_passages_are_those_that_the_reader_computes(made, kept, monkeypatch):
    translator, losses = made
    plain = BaseStates(translator, losses, None).of_passages(TEXTS)
    cached = BaseStates(translator, losses, kept)
    first = cached.of_passages(TEXTS)
    monkeypatch.setattr(translator.reader, "states", lambda texts: pytest.fail(f"{texts} were read again"))
    for found in (first, cached.of_passages(TEXTS)):
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_states_below_the_adapters_are_cached_by_sequence(made, kept, monkeypatch):
    translator, losses = made
    cached = BaseStates(translator, losses, kept)
    examples = [e for of_document in ASKED.values() for e in of_document]
    expected = losses.lower_states(examples)
    first = cached.below(ASKED)
    monkeypatch.setattr(losses, "lower_states", lambda examples: pytest.fail(f"{examples} were computed again"))
    for found in (first, cached.below(ASKED)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_a_cache_or_layers_below_nothing_is_computed_beforehand(lm, made, kept):
    translator, losses = made
    assert BaseStates(translator, losses, None).below(ASKED) == {}
    whole = Translator(lm, TranslatorConfig.of(lm, recipe=DISTILL.changed(rank=2, layers=None), width=16, heads=2))
    everywhere = DocumentLosses(lm.engine, whole.config.layout)
    assert BaseStates(whole, everywhere, kept).below(ASKED) == {}
