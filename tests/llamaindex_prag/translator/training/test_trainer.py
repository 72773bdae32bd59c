"""Tests of training a translator on a tiny model: that it learns, resumes where it stopped, and rejects bad input."""

import math

import pytest
import torch

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.translator.training.corpus import Corpus, Lesson, split
from llamaindex_prag.translator.training.plan import TrainingPlan
from llamaindex_prag.translator.translator import Translator
from tests.llamaindex_prag.translator.training.lessons import LESSONS, PLAN, translator, unchecked


def test_training_lowers_the_loss_on_held_out_passages(lm, corpus, tmp_path):
    plan = TrainingPlan(
        steps=30, documents=3, questions=2, validate_every=15, validation_questions=3, warm_up=2, learning_rate=1e-2
    )
    run = unchecked(translator(lm), corpus, tmp_path / "t", plan).train(show=False)
    first, last = run.history[0], run.history[-1]
    assert (first["step"], last["step"]) == (0, 30)
    assert last["own"] < 0.8 * first["own"]
    assert last["base"] == first["base"] == pytest.approx(first["own"], rel=0.2)
    assert run.best == min(e["own"] for e in run.history)
    kept = Translator.load(tmp_path / "t", lm)
    assert kept.record["history"] == [e for e in run.history if e["step"] <= kept.record["history"][-1]["step"]]


@pytest.mark.slow
def test_the_published_network_can_be_trained_end_to_end(lm, corpus, tmp_path):
    """Its first gradients are near 1e-14, far below any usual epsilon of Adam."""
    changes = {
        "steps": 40,
        "documents": 4,
        "questions": 3,
        "validate_every": 40,
        "validation_questions": 3,
        "warm_up": 2,
        "learning_rate": 1e-2,
    }
    run = unchecked(
        translator(lm, "dyprag"), corpus, tmp_path / "t", TrainingPlan.of("dyprag").changed(**changes)
    ).train(show=False)
    assert run.history[-1]["own"] < 0.8 * run.history[0]["own"]
    stuck = unchecked(translator(lm, "dyprag"), corpus, tmp_path / "s", TrainingPlan(**changes))
    assert stuck.train(show=False).history[-1]["own"] == pytest.approx(run.history[0]["own"], abs=1e-3)


def test_an_interrupted_run_ends_with_the_same_result_as_an_uninterrupted_one(lm, corpus, tmp_path):
    plan = PLAN.changed(unrelated=1)
    whole = unchecked(translator(lm), corpus, tmp_path / "whole", plan)
    whole.train(show=False)
    calls = iter([False, False, False, True])
    unchecked(translator(lm), corpus, tmp_path / "parts", plan).train(over=lambda: next(calls), show=False)
    killed = unchecked(translator(lm), corpus, tmp_path / "parts", plan)
    assert killed.run.steps == 3
    killed._step(3)  # this step is never saved
    again = unchecked(translator(lm), corpus, tmp_path / "parts", plan)
    again.train(show=False)
    for (name, one), (_, other) in zip(
        whole.translator.network.named_parameters(), again.translator.network.named_parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6), name
    assert [e["own"] for e in again.run.history] == pytest.approx([e["own"] for e in whole.run.history], abs=1e-5)


def test_the_gradient_equals_that_of_the_whole_graph(lm, corpus, tmp_path):
    """Compare with one backward pass through network and model, with the update written out as W + s B A."""
    trainer = unchecked(
        translator(lm), corpus, tmp_path / "t", TrainingPlan(documents=2, questions=2, unrelated=0, clip=1e9)
    )
    network, config = trainer.translator.network, trainer.translator.config
    lessons = list(corpus.train[:2])
    examples = trainer._examples(lessons, 0)
    values = network.generate(network.pool(trainer.translator.reader.states([x.text for x in lessons])))
    total = torch.zeros(())
    for buffer, sequences in zip(values, examples, strict=True):
        weights = dict(lm.model.named_parameters())
        for target, a, b in zip(config.layout.targets, config.layout.a_offsets, config.layout.b_offsets, strict=True):
            rank = config.layout.rank
            down = buffer[a : a + rank * target.inputs].view(rank, target.inputs)
            up = buffer[b : b + rank * target.outputs].view(rank, target.outputs).T
            name = f"{target.name}.weight"
            weights[name] = weights[name].detach() + config.scale * up @ down
        counted = sum(e.counted for e in sequences)
        for e in sequences:
            found = torch.func.functional_call(lm.model, weights, kwargs={"input_ids": torch.tensor([e.ids])})
            logits = found.logits[0, e.counted_from - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(e.ids[e.counted_from :]), reduction="sum")
            total = total + loss / counted / 2
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    names, parameters = zip(*trained, strict=True)
    expected = dict(zip(names, torch.autograd.grad(total, parameters), strict=True))
    seen = {}
    trainer._optimiser.step = lambda: seen.update({n: p.grad.clone() for n, p in trained})
    trainer._corpus = Corpus(tuple(lessons), corpus.validation)
    trainer._examples = lambda chosen, _step: [examples[lessons.index(x)] for x in chosen]
    assert trainer._step(0) == pytest.approx(float(total.detach()), rel=1e-4)
    for name, gradient in expected.items():
        assert torch.allclose(seen[name], gradient, atol=1e-5 + 1e-3 * float(gradient.abs().max())), name


def test_without_known_answers_f1_is_none_and_the_progress_bar_still_works(lm, tmp_path):
    told = [
        Lesson(x.text, x.title, (QA(f"Who built bridge {i}?", "nobody", source="model"),))
        for i, x in enumerate(LESSONS)
    ]
    plan = PLAN.changed(steps=2, phrases=0)
    run = unchecked(translator(lm), split(told, validation=3), tmp_path / "t", plan).train(show=True)
    assert [e["f1"] for e in run.history] == [None, None]


def test_patience_ends_a_training_that_does_not_improve(lm, corpus, tmp_path, monkeypatch):
    plan = PLAN.changed(steps=50, documents=1, questions=1, validate_every=1, patience=2)
    trainer = unchecked(translator(lm), corpus, tmp_path / "t", plan)
    values = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    judge = trainer._validation.judge

    def judged():
        from dataclasses import replace

        return replace(judge(), own=next(values))

    monkeypatch.setattr(trainer._validation, "judge", judged)
    run = trainer.train(show=False)
    assert (run.steps, run.best) == (3, 2.0)
    assert "no better" in run.ended
    assert trainer.train(show=False).steps == 3


def test_a_nan_loss_stops_the_training_and_leaves_the_saved_state_untouched(lm, corpus, tmp_path, monkeypatch):
    trainer = unchecked(translator(lm), corpus, tmp_path / "t", PLAN)
    backward, calls = trainer._losses.backward, []

    def diverging(*given):
        calls.append(1)
        losses = backward(*given)
        return dict.fromkeys(losses, math.nan) if len(calls) > 3 else losses

    monkeypatch.setattr(trainer._losses, "backward", diverging)
    with pytest.raises(TranslatorError, match=r"loss of step 3 is nan.*state of step 2"):
        trainer.train(show=False)
    again = unchecked(translator(lm), corpus, tmp_path / "t", PLAN)
    assert again.run.steps == 2
    assert all(p.isfinite().all() for p in again.translator.network.parameters())


def test_training_leaves_the_model_unchanged(lm, corpus, tmp_path):
    before = {n: p.clone() for n, p in lm.model.named_parameters()}
    unchecked(translator(lm, "dyprag"), corpus, tmp_path / "t", PLAN).train(show=False)
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    assert not any("forward" in vars(m) for m in lm.model.modules())
