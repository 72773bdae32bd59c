"""Progress and estimates of a job: the same for progress bars, Python callbacks, and waiting questions."""

import logging
from itertools import pairwise

import pytest

from llamaindex_prag.adapters.recipe import DISTILL, get_recipe
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.progress import JobStatus, Meter, WaitedFor, bar, duration
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

NOTES = [
    Passage(f"In {1900 + i} the mason Aldous Wray laid stone {i} of the bridge.", document=f"d{i}") for i in range(5)
]


RECIPES = {
    "prag": get_recipe("prag"),
    "prag by the model": get_recipe("prag", augmentation="model"),
    "distill": DISTILL.changed(rank=2, phrases=8, epochs=3),
}


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def store(lm, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, map_size=1 << 26) as opened:
        yield opened


@pytest.fixture
def every_step(monkeypatch):
    """Report every step, however soon it follows the one before."""
    monkeypatch.setattr("llamaindex_prag.progress._INTERVAL", 0.0)


def parametrizer(lm, store, recipe, **options):
    model = ParametricModel(lm, store, recipe=recipe)
    writer = {}
    if model.recipe.augmentation == "model":
        writer["augmenter"] = Augmenter(lm, questions=3, max_new_tokens=12, retries=0)
    return Parametrizer(model, **writer, **options)


@pytest.mark.parametrize("name", RECIPES)
def test_progress_advances_with_every_forward_pass_and_ends_at_one(lm, store, every_step, name):
    seen = []
    report = parametrizer(lm, store, RECIPES[name]).parametrize(NOTES, progress=False, watch=seen.append)
    assert report.trained == 5
    parts = [a.part for a in seen]
    assert parts == sorted(parts)
    assert (parts[0], parts[-1]) == (0.0, pytest.approx(1.0))
    trained = [a.part for a in seen if a.stage == "training"]
    assert len(set(trained)) > 5
    steps = [b - a for a, b in pairwise(trained)]
    assert max(steps) < 0.5 * sum(steps)  # the group does not advance in a single step
    assert [seen[0].made, seen[-1].made, seen[-1].of] == [0, 5, 5]
    assert seen[-1].left == 0.0
    assert seen[0].left == pytest.approx(seen[0].estimated)
    assert set(seen[-1].documents) == {p.document for p in NOTES}
    if name != "prag":
        busy = "questions" if "model" in name else "teacher"
        assert len({a.part for a in seen if a.stage == busy}) > 3


def test_an_estimate_counts_only_the_missing_adapters(lm, store):
    made = parametrizer(lm, store, RECIPES["prag"])
    before = made.estimate([*NOTES, NOTES[0], Passage("river " * 3000)])
    assert (before.documents, before.known) == (5, 0)
    assert before.low < before.seconds < before.high
    assert str(before) == (
        f"about {duration(before.seconds)} for 5 documents ({duration(before.low)} to {duration(before.high)})"
    )
    assert len(store) == 0
    assert made.estimate([]).documents == 0
    made.parametrize(NOTES[:3], progress=False)
    after = made.estimate(NOTES)
    assert (after.documents, after.known) == (2, 3)
    assert after.seconds == pytest.approx(before.seconds * 2 / 5, rel=0.1)
    assert str(after).endswith("; 3 already trained")
    made.parametrize(NOTES, progress=False)
    forwards = lm.engine.counts.forwards
    assert str(made.estimate(NOTES)) == "nothing to train; 5 already trained"
    assert lm.engine.counts.forwards == forwards


def test_a_jobs_duration_corrects_the_next_estimate(lm, store, monkeypatch):
    made = parametrizer(lm, store, RECIPES["prag"])
    first = made.estimate(NOTES[:1])
    clock = [0.0]

    def ticking():
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr("llamaindex_prag.progress.time.perf_counter", ticking)
    made.parametrize(NOTES[1:2], progress=False, watch=lambda _: None)
    monkeypatch.undo()
    monkeypatch.setenv("DYNPRAG_CACHE", str(store.path.parent / "cache"))
    assert made.estimate(NOTES[:1]).seconds > max(3.0, first.seconds)


def test_nothing_is_measured_or_shown_without_progress(lm, store, capsys, caplog, tmp_path):
    with caplog.at_level(logging.INFO):
        parametrizer(lm, store, RECIPES["prag"]).parametrize(NOTES[:1], progress=False)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "cache" / "pace").exists()
    assert "about" not in caplog.text


def test_the_bar_shows_documents_stage_and_time_left_and_the_log_the_estimate(lm, store, capsys, caplog):
    with caplog.at_level(logging.INFO):
        parametrizer(lm, store, RECIPES["prag"]).parametrize(NOTES[:2], progress=True)
    shown = capsys.readouterr().err
    assert "0/2 documents, training of 2 documents, about" in shown
    assert "100%" in shown
    assert "2/2 documents" in shown
    assert "for 2 documents (" in caplog.text


def test_remaining_time_follows_the_pace_once_a_fair_part_is_done(monkeypatch):
    clock, seen = [0.0], []
    monkeypatch.setattr("llamaindex_prag.progress.time.perf_counter", lambda: clock[0])
    meter = Meter([seen.append], {"training": 10.0}, 1)
    with meter.stage("training", 10.0) as tick:
        clock[0] = 8.0  # the estimate was 4
        tick(0.4)
    assert [round(a.left, 1) for a in seen[:2]] == [10.0, 12.0]


def test_a_waiting_question_is_warned_about_once_and_then_reported_periodically(caplog):
    seen, clock = [], [0.0]
    logger = logging.getLogger("llamaindex_prag.test")
    waited = WaitedFor(logger, seen.append)
    meter = Meter([waited], {"training": 50.0}, 1)
    meter.begin(["ferry.md"])
    with caplog.at_level(logging.INFO), pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamaindex_prag.progress.time.perf_counter", lambda: meter._started + clock[0])
        with meter.stage("training", 50.0) as tick:
            for _ in range(10):
                clock[0] += 5.0
                tick(0.1)
    assert [r.levelname for r in caplog.records].count("WARNING") == 1
    assert "the adapter of ferry.md is trained: about 50 s" in caplog.text
    assert "missing='context'" in caplog.text
    assert 3 <= [r.levelname for r in caplog.records].count("INFO") <= 6
    assert "ferry.md: 20 %" in caplog.text
    assert len(seen) == 12


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "1 s"), (99, "99 s"), (540, "9 min"), (9000, "2.5 h")])
def test_durations_are_rounded(seconds, told):
    assert duration(seconds) == told


def test_the_bar_ends_with_the_count_alone(capsys):
    with bar(2) as show:
        show(JobStatus("training", ("petra",), 1, 2, 0.5, 60.0, 60.0, 120.0))
        show(JobStatus("training", ("petra",), 2, 2, 1.0, 120.0, 0.0, 120.0))
    first, *_, last = capsys.readouterr().err.strip().split("\r")
    assert "| 0/2 documents [" in first
    assert "| 2/2 documents [" in last
