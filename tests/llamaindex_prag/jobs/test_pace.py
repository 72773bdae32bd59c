"""The pace of a machine: cached per model and recipe, and corrected by every job."""

import pytest

from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter
from llamaindex_prag.jobs import pace as jobs
from llamaindex_prag.jobs.pace import Pace, machine_key
from llamaindex_prag.parametric_model import ParametricModel

PACE = Pace(train=0.5, teach=2.0, sequence=50.0, write=0.1)


@pytest.fixture
def model(lm, store, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))
    return ParametricModel(lm, store, recipe="prag")


@pytest.fixture
def trials(monkeypatch):
    """Count trials, which measure nothing."""
    found = []
    monkeypatch.setattr(jobs, "_tried", lambda *_: found.append(1) or PACE)
    return found


def test_a_job_corrects_each_stage_by_its_own_factor():
    planned = {"questions": 1.0, "teacher": 2.0, "training": 10.0}
    corrected = PACE.corrected(planned, {"questions": 3.0, "teacher": 1.0, "training": 5.0})
    assert corrected == Pace(train=0.25, teach=1.0, sequence=50.0, write=pytest.approx(0.3), jobs=1)
    assert corrected.corrected(planned, planned).jobs == 2


def test_testing_questions_costs_what_the_trial_took_and_is_not_multiplied_like_the_teachers_answers(
    lm, store, tmp_path, monkeypatch
):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(jobs, "took", lambda function: (function(), 1.0)[1])
    recipe = get_recipe("alora", epochs=1)
    answers = recipe.with_passage + recipe.unrelated + recipe.silence
    pace = jobs.pace_of(ParametricModel(lm, store, recipe=recipe), RuleAugmenter(), 1)
    assert pace.teach == pytest.approx(answers**0.5 + 1)


def test_stages_without_a_plan_are_not_corrected():
    planned, took = {"questions": 0.0, "training": 10.0}, {"questions": 5.0, "training": 20.0}
    assert PACE.corrected(planned, took) == Pace(train=1.0, teach=2.0, sequence=50.0, write=0.1, jobs=1)
    unknown = Pace(train=0.5, teach=0.0, sequence=50.0, write=None)
    assert unknown.corrected(planned, took).write is None


def test_a_pace_is_measured_once_and_replaced_by_that_of_a_job(model, trials):
    augmenter = RuleAugmenter()
    assert jobs.pace_of(model, augmenter, 8) == jobs.pace_of(model, augmenter, 8) == PACE
    assert trials == [1]
    faster = PACE.corrected({"training": 2.0}, {"training": 1.0})
    jobs.keep(model, augmenter, faster)
    assert jobs.pace_of(model, augmenter, 8) == faster
    jobs.forget(model, augmenter)
    assert jobs.pace_of(model, augmenter, 8) == PACE
    assert trials == [1, 1]


@pytest.mark.parametrize("content", ["{", "[]", '{"train": 1.0}'])
def test_a_cached_pace_of_another_form_is_measured_again(model, trials, tmp_path, content):
    jobs.keep(model, RuleAugmenter(), PACE)
    (path,) = (tmp_path / "cache" / "pace").iterdir()
    path.write_text(content)
    assert jobs.pace_of(model, RuleAugmenter(), 8) == PACE
    assert trials == [1]


def test_each_recipe_and_each_source_of_questions_has_its_own_pace(model, lm, store, trials):
    other = ParametricModel(lm, store, recipe=get_recipe("prag", epochs=5))
    assert machine_key(model) != machine_key(other)
    for used, augmenter in ((model, RuleAugmenter()), (other, RuleAugmenter()), (model, Augmenter(None))):
        jobs.pace_of(used, augmenter, 8)
    assert len(trials) == 3


def test_without_a_cache_folder_every_estimate_runs_a_trial(model, trials, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        assert jobs.pace_of(model, RuleAugmenter(), 8) == PACE
    assert trials == [1, 1]
