"""Compares DyPRAG's objective and gradient with the formula written out, and trains a translator with it."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import PRAG
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.store.lmdb_store import LMDBStore
from llamaindex_prag.training.distillation import TOP
from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.training.corpus import split
from llamaindex_prag.translator.training.imitation import Imitation, tensor_shares
from llamaindex_prag.translator.training.plan import DYPRAG, TrainingPlan
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.translator.training.lessons import LESSONS, unchecked

RULES = PRAG.changed(augmentation="rules")  # what "auto" is settled to for a model this small
PLAN = DYPRAG.changed(steps=6, validate_every=3, validation_questions=1)


@pytest.fixture
def translator(lm):
    return Translator(lm, TranslatorConfig.of(lm, "dyprag", width=8))


@pytest.fixture
def store(lm, translator, tmp_path):
    """A store with adapters of all lessons except the last three: the same `A`, and a different `B` per passage."""
    layout = translator.config.layout
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:
        for i, lesson in enumerate(LESSONS[:-3]):
            values = initial_values(layout, 0).numpy().copy()
            values[layout.a_size :] = np.random.default_rng(i).standard_normal(layout.size - layout.a_size) * 0.05
            store.put(AdapterKey(lm.fingerprint, RULES.key, text_hash(lesson.text)), Adapter(layout, values, 16.0), {})
        yield store


def logprobs_of(lm, config, buffer, scale, ids):
    """Return (tokens - 1, vocabulary) log-probabilities, computed with W + s B A instead of W."""
    weights = dict(lm.model.named_parameters())
    for target, a, b in zip(config.layout.targets, config.layout.a_offsets, config.layout.b_offsets, strict=True):
        rank, name = config.layout.rank, f"{target.name}.weight"
        down = buffer[a : a + rank * target.inputs].view(rank, target.inputs)
        up = buffer[b : b + rank * target.outputs].view(rank, target.outputs).T
        weights[name] = weights[name].detach() + scale * up @ down
    found = torch.func.functional_call(lm.model, weights, kwargs={"input_ids": torch.tensor([ids])})
    return found.logits[0, :-1].log_softmax(-1)


@pytest.mark.parametrize("scaling", ["paper", "reference"])
def test_loss_and_gradient_match_the_published_formula(lm, store, tmp_path, scaling):
    config = TranslatorConfig.of(lm, "dyprag", width=8, scaling=scaling)
    trainer = unchecked(Translator(lm, config), split(LESSONS, validation=5), tmp_path / "t", PLAN, adapters=store)
    imitation, lessons = trainer._imitation, list(trainer._corpus.train[:2])
    values = (torch.randn(2, config.layout.size, generator=torch.Generator().manual_seed(1)) * 0.05).requires_grad_()
    expected = torch.zeros(2)
    for i, lesson in enumerate(lessons):
        ids = list(imitation._sequence(lesson, 0).ids)
        target = torch.empty(config.layout.size)
        scale = store.read_into(AdapterKey(lm.fingerprint, RULES.key, text_hash(lesson.text)), target.numpy())
        assert scale == 16.0
        assert config.scale == (16.0 if scaling == "paper" else 1.0)
        with torch.no_grad():
            teacher = logprobs_of(lm, config, target, scale, ids)
        student = logprobs_of(lm, config, values[i], config.scale, ids)
        told = -student.gather(1, torch.tensor(ids[1:])[:, None]).mean()
        best = teacher.topk(min(TOP, teacher.shape[1]))
        p, q = best.values, student.gather(1, best.indices)
        rest_p, rest_q = 1 - p.exp().sum(1), 1 - q.exp().sum(1)
        divergence = ((p.exp() * (p - q)).sum(1) + rest_p * (rest_p.log() - rest_q.log())).sum()
        mse = torch.zeros(())
        for (_, a, b), (_, x, y) in zip(
            config.layout.factors(values[i].detach().numpy()), config.layout.factors(target.numpy()), strict=True
        ):
            mse = mse + float(np.mean((a - x) ** 2) + np.mean((b - y) ** 2))
        apart = values[i] - target
        assert float(mse) == pytest.approx(float((apart.detach() ** 2 * tensor_shares(config.layout)).sum()), rel=1e-4)
        expected[i] = told + 0.01 * divergence + 100 * ((apart**2) * tensor_shares(config.layout)).sum()
    (gradient,) = torch.autograd.grad(expected.sum(), values)
    loss, found = imitation.of_step(lessons, values, 0)
    assert loss == pytest.approx(float(expected.detach().mean()), rel=1e-3)
    assert torch.allclose(found, gradient, atol=1e-5 + 2e-3 * float(gradient.abs().max()))
    without = found - 100 * 2 * (values.detach() - imitation.targets([x.text for x in lessons])[0]) * tensor_shares(
        config.layout
    )
    assert float(without.norm()) > 1e-3  # the other two terms have a gradient too


@pytest.mark.slow
def test_a_translator_learns_to_reproduce_trained_adapters(lm, store, tmp_path):
    shared = Translator(lm, TranslatorConfig.of(lm, "shared", recipe=PRAG, width=16, tokens=2, heads=2))
    plan = PLAN.changed(steps=60, documents=4, learning_rate=1e-2, validate_every=60)
    trainer = unchecked(shared, split(LESSONS, validation=5), tmp_path / "t", plan, adapters=store)
    run = trainer.train(show=False)
    texts = [lesson.text for lesson in trainer._corpus.train[:4]]
    targets, _ = trainer._imitation.targets(texts)
    made = torch.from_numpy(shared.translate(shared.represent(texts)))
    size = shared.config.layout.a_size  # these adapters share their `A`; their `B` are noise
    shares = tensor_shares(shared.config.layout)[:size]
    left, all_of_it = (((x - targets) ** 2)[:, :size] @ shares for x in (made, torch.zeros_like(made)))
    assert left.mean() < 0.1 * all_of_it.mean()
    assert run.steps == 60


def test_trained_adapters_can_be_an_additional_target_of_distillation(lm, store, tmp_path):
    shared = Translator(lm, TranslatorConfig.of(lm, "shared", recipe=PRAG, width=16, tokens=2, heads=2))
    plan = TrainingPlan(steps=2, documents=2, questions=2, validate_every=2, validation_questions=1, mse=5.0)
    trainer = unchecked(shared, split(LESSONS, validation=5), tmp_path / "t", plan, adapters=store)
    lessons = list(trainer._corpus.train[:2])
    values = shared.network.generate(shared.network.pool(shared.reader.states([x.text for x in lessons])))
    loss, gradient = trainer._distilled(lessons, values, 0)
    distance, pull = trainer._imitation.distance(values, trainer._imitation.targets([x.text for x in lessons])[0])
    trainer._imitation = None
    plain_loss, plain_gradient = trainer._distilled(lessons, values, 0)
    assert loss == pytest.approx(plain_loss + 5.0 * float(distance.mean()), rel=1e-5)
    assert torch.allclose(gradient, plain_gradient + 5.0 * pull, atol=1e-6)


def test_passages_without_a_trained_adapter_are_left_out_of_training(lm, translator, store, tmp_path):
    trainer = unchecked(translator, split(LESSONS, validation=5), tmp_path / "t", PLAN, adapters=store)
    lacking = {lesson.text for lesson in LESSONS[-3:]}
    assert not lacking & {lesson.text for lesson in trainer._corpus.train}
    assert isinstance(trainer._imitation, Imitation)
    with (
        LMDBStore(tmp_path / "none", model=lm.fingerprint) as empty,
        pytest.raises(TranslatorError, match="none of the"),
    ):
        unchecked(translator, split(LESSONS, validation=5), tmp_path / "u", PLAN, adapters=empty)


def test_only_drawn_sequences_include_closed_book_ones(lm, translator, store, tmp_path):
    corpus = split(LESSONS, validation=5)
    seen = {}
    for sequences in ("first", "drawn"):
        plan = PLAN.changed(sequences=sequences)
        trainer = unchecked(translator, corpus, tmp_path / sequences, plan, adapters=store)
        lesson = trainer._corpus.train[0]
        examples = [trainer._imitation._sequence(lesson, step) for step in range(20)]
        seen[sequences] = {lesson.text in lm.tokenizer.decode(list(e.ids)) for e in examples}
    assert seen == {"first": {True}, "drawn": {True, False}}


def test_adapters_must_be_given_exactly_when_the_plan_needs_them(translator, store, tmp_path):
    corpus = split(LESSONS, validation=5)
    with pytest.raises(ConfigurationError, match="learns from trained adapters; give them"):
        unchecked(translator, corpus, tmp_path / "t", PLAN)
    with pytest.raises(ConfigurationError, match="uses no adapters; give none"):
        unchecked(translator, corpus, tmp_path / "t", TrainingPlan(), adapters=store)
    for changes, reason in (({"objective": "guess"}, "objective is 'guess'"), ({"mse": -1.0}, "mse is -1")):
        with pytest.raises(ConfigurationError, match=reason):
            TrainingPlan(**changes)
