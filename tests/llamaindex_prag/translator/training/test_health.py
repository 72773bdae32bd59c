"""The health check: a translator that ignores its document fails it, one whose adapters carry the document passes."""

import pytest
import torch
from torch import nn

from llamaindex_prag.errors import TranslatorHealthError
from llamaindex_prag.training.factors import AdamW, DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.training import trainer as training
from llamaindex_prag.translator.training.health import Health, HealthCheck, NeedleScore, check, wilson
from llamaindex_prag.translator.training.needles import needle_corpus
from llamaindex_prag.translator.training.trainer import TranslatorTrainer
from llamaindex_prag.translator.training.validation import Validation
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.translator.training.lessons import PLAN, translator

QUICK = HealthCheck(steps=2, documents=2, train=8, unseen=16)
ASKED = PLAN.changed(phrases=0)
RIGHT, WRONG = [1.0] * 15 + [0.0], [0.0] * 16


class Given(nn.Module):
    """A network that returns given adapters, one per document in the order in which they are read."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def pool(self, states):
        return torch.arange(len(states))

    def generate(self, pooled):
        return self.values[pooled]


def needles(made, unseen=16):
    losses = DocumentLosses(made.lm.engine, made.config.layout)
    return Validation(made, losses, needle_corpus(1, unseen).validation, ASKED)


def trained(made, found):
    """Return (needles, layout.size) adapters, each trained on its own needle."""
    layout, engine = made.config.layout, made.lm.engine
    start = made.network.common.detach()
    factors = DocumentFactors(engine.model, layout, start, len(found), made.config.scale)
    losses = DocumentLosses(engine, layout)
    optimiser = AdamW(factors, 0.02, 0.0, 1e-8)
    active = {i: document.examples for i, document in enumerate(found._documents)}
    for _ in range(150):
        losses.backward(factors, active, {})
        optimiser.step(list(active))
    return factors.values.clone()


def test_a_translator_that_ignores_its_document_fails(lm):
    made = translator(lm)
    found = needles(made)
    adapters = trained(made, found)
    made.network = Given(adapters[:1].expand(len(found), -1))
    health = check(found, 0.5)
    assert not health.passed
    assert health.own.loss == pytest.approx(health.other.loss)
    assert "nothing shows that an adapter carries what its document says" in health.why
    assert f"[{health.own.low:.2f}, {health.own.high:.2f}]" in health.why


def test_adapters_trained_on_their_own_needles_pass(lm):
    made = translator(lm)
    found = needles(made)
    made.network = Given(trained(made, found))
    health = check(found, 0.5)
    assert health.passed, health.why
    assert health.own.exact_match > 0.9
    assert health.other.exact_match == 0
    assert health.own.loss < min(health.other.loss, health.mean.loss)
    assert health.to_dict()["passed"] is True


def health_of(own, other, mean, required=0.5):
    return Health(16, *(NeedleScore.of(matches, [1.0]) for matches in (own, other, mean)), required)


@pytest.mark.parametrize(
    ("health", "why"),
    [
        (health_of(RIGHT, WRONG, RIGHT), "nothing shows"),
        (health_of(RIGHT, RIGHT, WRONG), "nothing shows"),
        (health_of(RIGHT, WRONG, WRONG, required=1.0), "less than the required 1"),
    ],
)
def test_own_adapters_must_beat_both_others_and_reach_what_is_required(health, why):
    assert not health.passed
    assert why in health.why
    assert health_of(RIGHT, WRONG, WRONG).passed


@pytest.mark.parametrize(("successes", "trials", "bounds"), [(0, 64, (0, 0.0566)), (5, 10, (0.2366, 0.7634))])
def test_the_interval_of_a_fraction(successes, trials, bounds):
    assert wilson(successes, trials) == pytest.approx(bounds, abs=1e-4)


def test_a_translator_that_fails_is_not_trained_on_prose(lm, corpus, tmp_path):
    trainer = TranslatorTrainer(translator(lm), corpus, tmp_path / "t", PLAN, health_check=QUICK)
    before = {name: value.clone() for name, value in trainer.translator.network.state_dict().items()}
    with pytest.raises(TranslatorHealthError, match=r"On 16 unseen needles: own adapter 0\.00.*--no-health-check"):
        trainer.train(show=False)
    assert not (tmp_path / "t").exists()
    assert trainer.run.history == []
    assert all(torch.equal(value, before[name]) for name, value in trainer.translator.network.state_dict().items())
    again = TranslatorTrainer(translator(lm), corpus, tmp_path / "t", PLAN, health_check=QUICK)
    with pytest.raises(TranslatorHealthError):  # the needles are not learnt a second time
        again.train(over=lambda: pytest.fail("a step was made"), show=False)


def test_a_training_that_was_stopped_on_needles_resumes_there(lm, corpus, tmp_path):
    calls = iter([False, True])
    trainer = TranslatorTrainer(translator(lm), corpus, tmp_path / "t", PLAN, health_check=QUICK)
    run = trainer.train(over=lambda: next(calls), show=False)
    assert (run.steps, run.history, trainer.health) == (0, [], None)
    steps = []
    again = TranslatorTrainer(translator(lm), corpus, tmp_path / "t", PLAN, health_check=QUICK)
    with pytest.raises(TranslatorHealthError):
        again.train(over=lambda: bool(steps.append(1)), show=False)
    assert len(steps) == 1


def test_the_record_of_a_translator_says_how_it_passed(lm, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "check", lambda needles, required: health_of(RIGHT, WRONG, WRONG, required))
    trainer = TranslatorTrainer(translator(lm), corpus, tmp_path / "t", PLAN, health_check=QUICK)
    run = trainer.train(show=False)
    assert (run.steps, run.health["passed"]) == (4, True)
    assert type(trainer.translator).load(tmp_path / "t", lm).record["health"] == run.health
    resumed = TranslatorTrainer(translator(lm), corpus, tmp_path / "t", PLAN)
    assert resumed.run.health == run.health
    assert resumed.train(show=False).steps == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps of a health check is 0; at least 1"),
        ({"unseen": 8}, "unseen of a health check is 8; at least 16"),
        ({"train": 10_000}, "needles were asked for; there are 3136"),
        ({"exact_match": 0.0}, "exact_match is 0.0"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        HealthCheck(**wrong)
