"""Tests that cached states equal computed ones, can be shared by several trainings, and are ignored when damaged."""

import subprocess
import sys

import lmdb
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.errors import StoreError
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.training.base_states import BaseStates
from llamaindex_prag.translator.training.plan import TrainingPlan
from llamaindex_prag.translator.training.state_cache import KeptStates, _read, _written
from llamaindex_prag.translator.translator import Translator
from tests.llamaindex_prag.translator.training.lessons import PLAN, unchecked

CPU = torch.device("cpu")


def translator(lm) -> Translator:
    """Build a translator for the upper layers only, so that there are layers below the adapters."""
    recipe = DISTILL.changed(rank=2, layers=0.5)
    return Translator(lm, TranslatorConfig.of(lm, recipe=recipe, width=16, tokens=2, heads=2))


@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_states_survive_a_round_trip_through_the_cache(dtype, shape):
    states = torch.randn(*shape).to(dtype)
    found = _read(memoryview(_written(states)), shape[0])
    assert found.dtype == dtype
    assert torch.equal(found, states)
    assert _read(memoryview(_written(states)), shape[0] + 1) is None


@given(st.data())
def test_a_damaged_value_counts_as_missing(data):
    content = bytearray(_written(torch.randn(3, 2)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    assert _read(memoryview(bytes(content)), 3) is None
    assert _read(memoryview(bytes(content[: data.draw(st.integers(0, len(content) - 1))])), 3) is None


def test_each_state_is_computed_once_across_all_trainings(tmp_path):
    asked = []

    def compute(missing):
        asked.append(missing)
        return {i: torch.full((2, 3), float(i)) for i in missing}

    for _ in range(2):
        with KeptStates(tmp_path / "states", "model") as kept:
            found = kept.of("read", [[1, 2], [3, 4]], compute, CPU)
            assert [float(f[0, 0]) for f in found] == [0.0, 1.0]
    assert asked == [[0, 1]]
    with KeptStates(tmp_path / "states", "another model") as kept:
        kept.of("read", [[1, 2]], compute, CPU)
        kept.of("below", [[1, 2]], compute, CPU)
    assert asked == [[0, 1], [0], [0]]


def test_states_that_do_not_fit_in_the_cache_are_computed_each_time(tmp_path):
    calls = []

    def compute(missing):
        calls.append(missing)
        return {i: torch.zeros(2, 500_000) for i in missing}

    with KeptStates(tmp_path / "states", "model", gigabytes=1 / 1024) as kept:
        for _ in range(2):
            assert kept.of("read", [[1, 2]], compute, CPU)[0].shape == (2, 500_000)
    assert calls == [[0], [0]]


def test_another_training_can_enlarge_an_open_cache(tmp_path):
    """The other training runs in a separate process, after this one has opened the folder with a smaller size."""
    with KeptStates(tmp_path / "states", "model", gigabytes=1 / 1024) as kept:
        kept.of("read", [[1]], lambda missing: {i: torch.zeros(1, 2) for i in missing}, CPU)
        code = (
            "import torch; from llamaindex_prag.translator.training.state_cache import KeptStates\n"
            f"with KeptStates({str(tmp_path / 'states')!r}, 'model', gigabytes=1 / 64) as kept:\n"
            "    kept.of('read', [[2]], lambda missing: {0: torch.ones(1, 1_000_000)}, torch.device('cpu'))"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        found = kept.of("read", [[1], [2]], lambda _: pytest.fail("both are kept"), CPU)
        assert [f.shape[1] for f in found] == [2, 1_000_000]


def test_a_folder_that_cannot_be_used_is_reported(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(StoreError, match="states cannot be kept in"):
        KeptStates(tmp_path / "file", "model")


def test_cached_states_do_not_change_the_result_of_training(lm, corpus, tmp_path):
    alone = unchecked(translator(lm), corpus, tmp_path / "alone", PLAN)
    alone.train(show=False)
    for name in ("first", "again"):
        with KeptStates.for_model(tmp_path / "states", lm) as kept:
            trainer = unchecked(translator(lm), corpus, tmp_path / name, PLAN, kept=kept)
            trainer.train(show=False)
        assert [e["own"] for e in trainer.run.history] == pytest.approx([e["own"] for e in alone.run.history], abs=1e-4)
    with lmdb.open(str(tmp_path / "states")) as env:
        assert env.stat()["entries"] > len(corpus.train)


def test_states_below_the_adapters_come_from_the_cache(lm, corpus, tmp_path):
    made = translator(lm)
    losses = DocumentLosses(lm.engine, made.config.layout)
    assert losses.first_adapted > 0
    trainer = unchecked(made, corpus, tmp_path / "t", TrainingPlan(steps=1, documents=2, questions=2))
    asked = dict(enumerate(trainer._examples(corpus.train[:2], 0)))
    with KeptStates.for_model(tmp_path / "states", lm) as kept:
        known = BaseStates(made, losses, kept).below(asked)
        assert set(known) == {id(e) for examples in asked.values() for e in examples}
    assert BaseStates(made, losses, None).below(asked) == {}
