"""Adapters that a question waits for: one failure does not stop the others, and a permanent one is remembered."""

import logging

from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement import maker
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.maker import MadeAdapters, Maker
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.translator.conftest import OTHERS


def made_by(model):
    return Maker(model, waiting=logging.getLogger(), progress=False, watch=None)


def candidates(*texts):
    return [Candidate(f"c{i}", text, name=f"doc {i}") for i, text in enumerate(texts)]


def test_a_passage_that_cannot_be_translated_does_not_stop_the_others(model, caplog):
    used, found, made = made_by(model), candidates(OTHERS[0], " ", OTHERS[1]), MadeAdapters()
    used.make("translate", found, made)
    assert (made.translated, list(made.failed)) == (2, ["c1"])
    assert "is blank" in made.failed["c1"]
    assert "a passage of doc 1 has no adapter" in caplog.text
    assert [model.find(c.text) is not None for c in found] == [True, False, True]


def test_a_permanent_failure_is_remembered_by_text_and_making(model):
    used, (blank, other) = made_by(model), candidates(" ", OTHERS[0])
    used.make("translate", [blank, other], MadeAdapters())
    assert "is blank" in used.why_not(Candidate("another id", " "), "translate")
    assert used.why_not(blank, "train") is None
    assert used.why_not(other, "translate") is None


def test_a_passing_failure_is_not_remembered(model, monkeypatch):
    used, (candidate,), made = made_by(model), candidates(OTHERS[0]), MadeAdapters()

    def fails(_):
        raise AdapterError("not now")

    with monkeypatch.context() as broken:
        broken.setattr(model.translations, "keep", fails)
        used.make("translate", [candidate], made)
    assert made.failed == {"c0": "not now"}
    assert used.why_not(candidate, "translate") is None
    used.make("translate", [candidate], made)
    assert made.translated == 1


def test_the_oldest_failures_are_forgotten_first(model, monkeypatch):
    monkeypatch.setattr(maker, "_REMEMBERED", 2)
    used, found = made_by(model), candidates("one", "two", "three")
    for candidate in found:
        used._give_up("train", candidate, candidate.id)
    assert [used.why_not(candidate, "train") for candidate in found] == [None, "c1", "c2"]


def test_a_model_without_a_translator_translates_nothing(lm, store):
    made = MadeAdapters()
    made_by(ParametricModel(lm, store, recipe="prag")).make("translate", candidates(OTHERS[0]), made)
    assert "has no translator" in made.failed["c0"]
