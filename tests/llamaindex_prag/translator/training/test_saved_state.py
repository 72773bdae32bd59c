"""The saved state of a training is restored, or rejected with the reason."""

import json

import pytest

from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.translator.training.corpus import split
from llamaindex_prag.translator.training.plan import TrainingPlan
from tests.llamaindex_prag.translator.training.lessons import LESSONS, PLAN, translator, unchecked


@pytest.mark.parametrize("what", ["plan", "corpus", "translator"])
def test_the_state_of_another_training_is_rejected(lm, corpus, tmp_path, what):
    unchecked(translator(lm), corpus, tmp_path / "t", PLAN).train(over=lambda: True, show=False)
    given = {"plan": PLAN, "corpus": corpus, "translator": translator(lm)}
    other = {
        "plan": TrainingPlan(steps=7),
        "corpus": split(LESSONS, validation=3, seed=1),
        "translator": translator(lm, seed=1),
    }
    given[what] = other[what]
    with pytest.raises(TranslatorError, match=f"another {what}"):
        unchecked(given["translator"], given["corpus"], tmp_path / "t", given["plan"])


def test_a_damaged_state_is_rejected(lm, corpus, tmp_path):
    unchecked(translator(lm), corpus, tmp_path / "t", PLAN).train(over=lambda: True, show=False)
    values = tmp_path / "t.training" / "state.safetensors"
    values.write_bytes(values.read_bytes()[:-1])
    with pytest.raises(TranslatorError, match="is damaged"):
        unchecked(translator(lm), corpus, tmp_path / "t", PLAN)
    (tmp_path / "t.training" / "state.json").write_text("{}")
    with pytest.raises(TranslatorError, match="cannot be read"):
        unchecked(translator(lm), corpus, tmp_path / "t", PLAN)


def test_a_full_disk_leaves_the_saved_state_untouched(lm, corpus, tmp_path, monkeypatch):
    trainer = unchecked(translator(lm), corpus, tmp_path / "t", PLAN)
    trainer.train(over=lambda: True, show=False)
    before = json.loads((tmp_path / "t.training" / "state.json").read_text())

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(TranslatorError, match="cannot be written"):
        trainer.train(show=False)
    monkeypatch.undo()
    assert json.loads((tmp_path / "t.training" / "state.json").read_text()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t", "t.training"]
