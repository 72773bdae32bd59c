"""Costs on a machine: measured once, stored, and what they add up to."""

import pytest

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.jobs.pace import PROBE
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.costs import Costs, measure_costs
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.translator.conftest import strong
from tests.tiny import tiny_llama, tiny_tokenizer


def test_costs_are_measured_once_per_model_and_translator(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "home"))
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, map_size=1 << 26) as store:
        recipe = DISTILL.changed(rank=2, phrases=4, epochs=3, layers=None)
        plain = ParametricModel(lm, store, recipe=recipe)
        found = measure_costs(plain)
        assert found.translate is None
        assert measure_costs(plain) == found
        (path,) = (tmp_path / "home" / "costs").iterdir()
        path.write_text("{")
        assert measure_costs(plain) != found  # an unreadable cache file is measured again
        translating = measure_costs(ParametricModel(lm, store, recipe="prag", translator=strong(lm)))
        assert translating.translate
        assert translating.represent
        assert len(store) == 0


@pytest.mark.parametrize(("epochs", "seconds"), [(1, 5.0), (2, 7.0), (8, 19.0)])
def test_the_single_pass_through_the_lower_layers_is_counted_once(tmp_path, monkeypatch, epochs, seconds):
    """The layers below take three seconds, which a single epoch runs with the others; each epoch takes two more."""
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "home"))
    clock = [0.0]

    class Trains:
        def __init__(self, engine, layout, recipe):
            self.epochs = recipe.epochs

        def train(self, lessons):
            clock[0] += 3 + 2 * self.epochs
            return iter(lessons)

    def lower_states(losses, examples):
        assert examples
        clock[0] += 3

    monkeypatch.setattr("llamaindex_prag.jobs.pace.Trainer", Trains)
    monkeypatch.setattr("llamaindex_prag.jobs.pace.DocumentLosses.lower_states", lower_states)
    monkeypatch.setattr("llamaindex_prag.jobs.pace.time.perf_counter", lambda: clock[0])
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    tokens = len(lm.tokenizer(PROBE, add_special_tokens=False).input_ids)
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, map_size=1 << 26) as store:
        recipe = DISTILL.changed(rank=2, phrases=4, epochs=epochs)
        assert measure_costs(ParametricModel(lm, store, recipe=recipe)).train * tokens == pytest.approx(seconds)


@pytest.mark.parametrize("wrong", [{"read": 0.0}, {"train": float("nan")}, {"translate": -1.0}])
def test_invalid_costs_are_rejected(wrong):
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} costs"):
        Costs(**{"read": 1.0, "activate": 1.0, "train": 1.0, **wrong})
