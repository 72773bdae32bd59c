"""Checkpoints of translators: written atomically, and rejected with the reason if their parts do not match."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.translator import checkpoint
from llamaindex_prag.translator.translator import Translator
from tests.llamaindex_prag.translator.made import made


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


def test_loading_from_an_empty_folder_reports_that_there_is_no_translator(lm, tmp_path):
    with pytest.raises(TranslatorError, match="there is no translator"):
        Translator.load(tmp_path, lm)
