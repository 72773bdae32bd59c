"""Passages become adapters once, and what cannot be learnt does not stop the others."""

import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.training.trainer import Trainer
from tests.llamaindex_prag.llama_index.conftest import TEXTS


@pytest.fixture
def model(lm, store):
    return ParametricModel.of(lm, store, recipe="prag", max_adapters=3)


def test_an_interrupted_job_resumes_where_it_stopped(model, store):
    passages = [Passage(f"In {1900 + i} the river rose in the town of Number {i}.", document=f"d{i}") for i in range(5)]
    parametrizer = Parametrizer(model, augmenter=Augmenter(None, questions=3), documents_at_once=2)
    original, trained = store.put, []

    def put(key, *args, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        original(key, *args, **options)
        trained.append(key)

    store.put = put
    with pytest.raises(KeyboardInterrupt):
        parametrizer.parametrize(passages, progress=False)
    del store.put
    assert sum(model.knows(p.text) for p in passages) == 2
    report = parametrizer.parametrize(passages, progress=False)
    assert (report.trained, report.known) == (3, 2)
    assert all(store.owners(text_hash(p.text)) == [p.document] for p in passages)


def test_too_long_sequences_are_left_out_and_a_passage_without_any_is_skipped(model):
    text, long = "The bridge has 41 arches.", "word " * 2100
    given = {
        text_hash(text): Augmentation(long, (QA("How many arches?", "41"),)),
        text_hash(TEXTS[3]): Augmentation(None, (QA(long, "yes"),)),
    }
    parametrizer = Parametrizer(model, augmenter=Augmenter(None), augmentations=given)
    report = parametrizer.parametrize([Passage(text), Passage(TEXTS[3])], progress=False)
    assert (report.trained, report.skipped) == (1, 1)
    assert model.knows(text)
    assert not model.knows(TEXTS[3])
    assert "left out" in " ".join(report.notes[text_hash(text)])
    assert "nothing to train on" in report.notes[text_hash(TEXTS[3])][-1]


def test_a_passage_whose_training_diverges_is_skipped_and_the_others_are_stored(model, monkeypatch):
    texts = [f"In {1900 + i} the river rose in the town of Number {i}." for i in range(3)]

    class Diverging(Trainer):
        def train(self, documents, advance=None):
            for trained in super().train(documents, advance):
                if trained.document.text == texts[1]:
                    trained.adapter.buffer[7] = float("nan")
                yield trained

    monkeypatch.setattr("llamaindex_prag.parametrize.Trainer", Diverging)
    report = Parametrizer(model, augmenter=Augmenter(None)).parametrize(map(Passage, texts), progress=False)
    assert (report.trained, report.skipped) == (2, 1)
    assert [model.knows(t) for t in texts] == [True, False, True]
    assert "training diverged" in report.notes[text_hash(texts[1])][-1]
    assert str(report) == f"2 trained, 0 known, 1 skipped ({report.seconds:.0f} s)"


@pytest.mark.parametrize(("text", "reason"), [("  \n", "it is blank"), ("river " * 3000, "Split it into passages")])
def test_a_passage_that_cannot_be_learnt_is_reported_and_the_others_are_learnt(model, text, reason, caplog):
    parametrizer = Parametrizer(model, augmenter=Augmenter(None))
    report = parametrizer.parametrize([Passage(text, document="long.md"), Passage(TEXTS[3])], progress=False)
    assert (report.trained, report.skipped) == (1, 1)
    assert reason in report.notes[text_hash(text)][0]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "long.md" in caplog.text
    assert reason in caplog.text
    assert model.knows(TEXTS[3])
    assert not model.knows(text)
