"""A worker's store gives what the driver sent, and collects what the worker writes."""

import numpy as np
import pytest

from llamaindex_prag.adapters.start import start_key
from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.kept import entries, keep, kept
from llamaindex_prag.cluster.worker_store import WorkerStore
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.training.warm_up import warm_up
from rag_backbone.errors import AdapterError

TEXT = "The bridge has 41 arches."


def test_kept_questions_travel_to_a_worker_and_new_ones_back(store):
    made = Augmentation(None, (QA("How many arches?", "41"),))
    keep(store, "k" * 64, "Bridge", TEXT, made)
    side = entries(store, "k" * 64, [("Bridge", TEXT), ("Mill", "The mill is old.")])
    worker = WorkerStore(store.model)
    worker.begin(side)
    assert kept(worker, "k" * 64, "Bridge", TEXT) == made
    assert kept(worker, "k" * 64, "Mill", "The mill is old.") is None
    assert worker.written == {}
    keep(worker, "k" * 64, "Mill", "The mill is old.", made)
    for (table, key), value in worker.written.items():
        store.put_json(table, key, value)
    assert kept(store, "k" * 64, "Mill", "The mill is old.") == made
    worker.begin({})
    assert kept(worker, "k" * 64, "Mill", "The mill is old.") is None


def test_a_recipe_with_a_start_is_trained_from_it_as_with_the_driver_s_store(lm, store):
    prag = ParametricModel(lm, store, recipe="prag").recipe
    recipe = prag.changed(start=warm_up(lm, store, prag, [("Who?", "Anna")]).digest)
    key = start_key(store, recipe)
    worker = WorkerStore(lm.fingerprint, (key, store.get(key)))
    found = [
        next(Parametrizer(ParametricModel(lm, held, recipe=recipe)).results([Passage(TEXT)]))
        for held in (store, worker)
    ]
    assert np.array_equal(found[0].adapter.buffer, found[1].adapter.buffer)
    assert found[0].record.keys() == found[1].record.keys()


def test_reading_an_adapter_that_a_worker_does_not_hold_is_refused(lm, store):
    model = ParametricModel(lm, store)
    with pytest.raises(AdapterError, match="holds none"):
        WorkerStore(lm.fingerprint).read_into(model.key(TEXT), np.zeros(model.layout.size, np.float32))
