"""Tests of the translator from text to adapter, and of its checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch

import llamaindex_prag
from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.translator.made import made
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

TEXTS = ["In 1954 the river rose.", "The bridge was built by an engineer.", "Nobody came back to the town."]


@pytest.fixture(scope="module")
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.mark.parametrize("kind", ["shared", "dyprag"])
def test_a_document_becomes_an_adapter_independently_of_the_rest_of_the_batch(lm, kind):
    translator = made(lm, kind)
    kept = translator.represent(TEXTS)
    adapters = translator.adapters(kept)
    for adapter in adapters:
        adapter.check()
        assert adapter.scale == translator.config.scale
    (alone,) = translator.adapters(translator.represent(TEXTS[1:2]))
    assert np.allclose(alone.buffer, adapters[1].buffer, atol=1e-4)
    assert kept[0].nbytes == translator.config.representation_bytes <= 4096


def test_keys_identify_translator_and_text(lm):
    one, same, other = made(lm), made(lm), made(lm, seed=1)
    assert one.key("A river.") == same.key(" A river. ")
    assert one.key("A river.").text == text_hash("A river.")
    assert one.key("A river.").recipe != other.key("A river.").recipe


@pytest.mark.parametrize("kind", ["shared", "dyprag"])
def test_a_translator_loaded_from_a_checkpoint_makes_the_same_adapters(lm, kind, tmp_path):
    translator = made(lm, kind)
    translator.record["steps"] = 12
    again = Translator.load(translator.save(tmp_path / "translator"), lm)
    assert (again.config, again.record, again.fingerprint) == (translator.config, {"steps": 12}, translator.fingerprint)
    kept = translator.represent(TEXTS)
    assert np.array_equal(again.translate(kept), translator.translate(kept))


def test_a_checkpoint_for_another_model_is_rejected(lm, tmp_path):
    folder = made(lm).save(tmp_path / "translator")
    with pytest.raises(TranslatorError, match="is for the model"):
        Translator.load(folder, CausalLM(tiny_qwen2(), tiny_tokenizer(), name="other"))


def test_representations_of_another_translator_are_rejected(lm):
    (kept,) = made(lm, tokens=2).represent(TEXTS[:1])
    with pytest.raises(TranslatorError, match=r"has the shape \(2, 16\)"):
        made(lm).translate([kept])


def test_a_diverged_translator_raises_instead_of_making_an_adapter(lm):
    translator = made(lm)
    translator.network.common.data[5] = torch.inf
    with pytest.raises(TranslatorError, match="damaged or diverged"):
        translator.translate(translator.represent(TEXTS[:1]))


def test_blank_documents_are_rejected(lm):
    with pytest.raises(ConfigurationError, match="a document is blank"):
        made(lm).represent(["A river.", " \n"])
    assert made(lm).represent([]) == []


def test_the_package_ships_no_translator_and_says_what_works_instead(lm):
    with pytest.raises(TranslatorError, match=r"No translator is shipped, because none passed.*missing='train'"):
        Translator.load("embedded", lm)
    assert not list(Path(llamaindex_prag.__file__).parent.rglob("*.safetensors"))
