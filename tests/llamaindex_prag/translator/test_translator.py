"""Tests of the translator from text to adapter, and of its checkpoint."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.translator import checkpoint
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

TEXTS = ["In 1954 the river rose.", "The bridge was built by an engineer.", "Nobody came back to the town."]


@pytest.fixture(scope="module")
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


def made(lm, kind="shared", **changes) -> Translator:
    form = {"width": 16, "tokens": 3, "heads": 2} if kind == "shared" else {}
    return Translator(lm, TranslatorConfig.of(lm, kind, **form | changes))


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


def test_a_checkpoint_replaces_an_earlier_one_but_nothing_else(lm, tmp_path):
    one, other = made(lm), made(lm, seed=1)
    one.save(tmp_path / "here")
    other.save(tmp_path / "here")
    assert Translator.load(tmp_path / "here", lm).fingerprint == other.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear brother")
    with pytest.raises(TranslatorError, match="name a new folder"):
        one.save(tmp_path / "mine")


def _truncated(folder):
    content = (folder / checkpoint.WEIGHTS).read_bytes()
    (folder / checkpoint.WEIGHTS).write_bytes(content[:-10])


def _without_weights(folder):
    (folder / checkpoint.WEIGHTS).unlink()


def _no_json(folder):
    (folder / checkpoint.CONFIG).write_text("{")


def _newer(folder):
    _described(folder, format=99)


def _other_layout(folder):
    described = json.loads((folder / checkpoint.CONFIG).read_text())
    _described(folder, layout=described["layout"] | {"rank": 3})


def _not_finite(folder):
    weights = load_file(folder / checkpoint.WEIGHTS)
    weights["common"][0] = torch.nan
    _rewritten(folder, weights)


def _other_weights(folder):
    weights = load_file(folder / checkpoint.WEIGHTS)
    del weights["common"]
    _rewritten(folder, weights)


def _rewritten(folder, weights):
    import hashlib

    save_file(weights, folder / checkpoint.WEIGHTS)
    _described(folder, sha256=hashlib.sha256((folder / checkpoint.WEIGHTS).read_bytes()).hexdigest())


def _described(folder, **changes):
    described = json.loads((folder / checkpoint.CONFIG).read_text())
    (folder / checkpoint.CONFIG).write_text(json.dumps(described | changes))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncated, "truncated or damaged"),
        (_without_weights, "is missing"),
        (_no_json, "cannot be read"),
        (_newer, "has format 99"),
        (_other_layout, "are not those of its 'shared' network"),
        (_not_finite, "not finite in common"),
        (_other_weights, "are not those of its 'shared' network"),
    ],
)
def test_an_inconsistent_checkpoint_is_rejected_with_the_reason(lm, tmp_path, damage, reason):
    folder = made(lm).save(tmp_path / "translator")
    damage(folder)
    with pytest.raises(TranslatorError, match=reason):
        Translator.load(folder, lm)


def test_a_checkpoint_for_another_model_is_rejected(lm, tmp_path):
    folder = made(lm).save(tmp_path / "translator")
    with pytest.raises(TranslatorError, match="is for the model"):
        Translator.load(folder, CausalLM(tiny_qwen2(), tiny_tokenizer(), name="other"))


def test_loading_from_an_empty_folder_reports_that_there_is_no_translator(lm, tmp_path):
    with pytest.raises(TranslatorError, match="there is no translator"):
        Translator.load(tmp_path, lm)


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


def test_the_package_contains_a_translator_for_the_embedded_model():
    lm = CausalLM.from_pretrained("embedded")
    translator = Translator.load("embedded", lm)
    assert (translator.name, translator.config.kind) == ("embedded", "shared")
    assert sum(f.stat().st_size for f in translator.folder.iterdir()) < 20e6
    one, other = translator.translate(translator.represent(["The Patient Anna sails to Hallin.", "Bees make honey."]))
    # Most of an adapter is common to all documents, but the document's own part is more than a rounding error.
    assert 0.05 < np.linalg.norm(one - other) / np.linalg.norm(one) < 1
