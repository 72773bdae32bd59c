"""The estimated duration of a job, for given paces."""

import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.adapters.recipe import DISTILL, PRAG
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter
from llamaindex_prag.jobs.estimate import Estimate, estimated
from llamaindex_prag.jobs.pace import Pace


def test_the_range_of_a_writing_model_is_wide_until_a_job_has_measured_it():
    augmenter = Augmenter(lambda prompt: "", name="other")
    local = Pace(train=0.01, teach=0.0, sequence=50.0, write=0.1)
    own = Augmenter(None)  # stands for a model in this process; only the pace matters
    first = estimated(PRAG, {text_hash("a"): 40}, 0, local, own)
    later = estimated(PRAG, {text_hash("a"): 40}, 0, Pace(0.01, 0.0, 50.0, 0.1, jobs=1), own)
    assert first.high / first.low > 5
    assert later.high / later.low < 2.5
    unknown = estimated(PRAG, {text_hash("a"): 40}, 0, Pace(0.01, 0.0, 50.0, None), augmenter)
    assert "is a guess" in str(unknown)
    assert "Augmenter(other" in str(unknown)


def test_training_time_grows_with_a_passage_in_the_prompt():
    pace = Pace(train=0.01, teach=0.0, sequence=50.0)
    rules = PRAG.changed(augmentation="rules")
    short, long = (estimated(rules, {"a": n}, 0, pace, RuleAugmenter()).seconds for n in (40, 140))
    assert short == pytest.approx(0.01 * (3 * 50 + 2 * 40))
    assert long - short == pytest.approx(0.01 * 2 * 100)
    by_model = estimated(PRAG, {"a": 40}, 0, pace, RuleAugmenter()).by_stage["training"]
    assert by_model == pytest.approx(0.01 * (5 * 50 + 4 * 40))
    # 52 questions by rule, 2 unrelated ones, 4 repeated with the passage; no model generates any.
    taught = estimated(DISTILL, {"a": 40}, 0, Pace(0.01, 2.0, 50.0, 0.5), Augmenter(None)).by_stage
    assert taught == {"questions": 0.0, "teacher": 2.0, "training": pytest.approx(0.01 * (58 * 50 + 4 * 40))}


def test_an_estimate_can_be_converted_to_plain_data():
    found = Estimate(1, 0, 5.0, 3.0, 8.0, stages={"a": {"training": 5.0}}).to_dict()
    assert found == {
        "documents": 1,
        "known": 0,
        "seconds": 5.0,
        "low": 3.0,
        "high": 8.0,
        "unknown": "",
        "by_stage": {"training": 5.0},
    }


def test_workers_share_an_estimate():
    found = Estimate(2, 1, 6.0, 4.0, 8.0, stages={"a": {"training": 2.0}, "b": {"questions": 1.0, "training": 3.0}})
    shared = found.shared_by(2)
    assert (shared.documents, shared.known, shared.seconds, shared.low, shared.high) == (2, 1, 3.0, 2.0, 4.0)
    assert shared.by_stage == {"training": 2.5, "questions": 0.5}
