"""Compares training many documents at once with training each alone with PEFT and torch's AdamW."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from llamaindex_prag.adapters.recipe import DISTILL, PRAG
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.training.distillation import distilled
from llamaindex_prag.training.examples import Example, Teacher, TrainingDocument
from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.training.objective import CountedLogits, batch_of, divergence, losses_of
from llamaindex_prag.training.packs import Pack
from llamaindex_prag.training.trainer import Trainer, plan
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer


def random_document(seed: int, sequences: int, *, teacher: bool = False) -> TrainingDocument:
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(sequences):
        ids = tuple(int(i) for i in rng.integers(3, 400, rng.integers(6, 40)))
        start = int(rng.integers(1, len(ids) - 1)) if teacher else 1
        taught = None
        if teacher:
            logprobs = torch.randn(len(ids) - start, 400, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
            best = logprobs.topk(16)
            taught = Teacher(best.indices, best.values)
        examples.append(Example(ids, start, taught))
    return TrainingDocument(f"document {seed}", tuple(examples))


def peft_alone(model, layout, recipe, document) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Train one document with PEFT's layers, full logits, one sequence per forward pass, and torch's AdamW."""
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(recipe.targets), task_type="CAUSAL_LM"
    )
    wrapped = get_peft_model(copy.deepcopy(model), config)
    start = initial_values(layout, recipe.seed).numpy()
    layers = {}
    for target, a, _ in layout.factors(start):
        layer = wrapped.base_model.model.get_submodule(target.name)
        layer.lora_A["default"].weight.data = torch.from_numpy(a.copy())
        layers[target.name] = layer
    parameters = [p for p in wrapped.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=recipe.epsilon
    )
    batches = plan(document, recipe)
    falls = recipe.schedule == "linear"
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / len(batches) if falls else 1.0)
    for batch in batches:
        counted = sum(e.counted for e in batch)
        for example in batch:
            logits = wrapped(input_ids=torch.tensor([example.ids])).logits[0, example.counted_from - 1 : -1].float()
            if example.teacher is None:
                targets = torch.tensor(example.ids[example.counted_from :])
                loss = functional.cross_entropy(logits, targets, reduction="sum")
            else:
                loss = divergence(logits, example.teacher.ids, example.teacher.logprobs).sum()
            (loss / counted).backward()
        optimiser.step()
        rates.step()
        optimiser.zero_grad()
    return {
        n: (layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach())
        for n, layer in layers.items()
    }


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
@pytest.mark.parametrize(
    "recipe",
    [PRAG.changed(epochs=2), DISTILL.changed(epochs=3, batch_size=3, rank=4, weight_decay=0.01)],
    ids=lambda r: r.name,
)
def test_each_document_gets_the_same_adapter_as_when_trained_alone_with_peft(make, recipe):
    model = make()
    layout = layout_of(model, rank=recipe.rank)
    # The numbers of sequences differ, so some documents finish before others in their group.
    documents = [random_document(i, n, teacher=recipe.name == "distill") for i, n in enumerate([5, 5, 3, 4, 7])]
    trainer = Trainer(Engine(model, tiny_tokenizer()), layout, recipe, documents_at_once=3, tokens_at_once=64)
    found = {t.document.text: t for t in trainer.train(documents)}
    assert found.keys() == {d.text for d in documents}
    for document in documents:
        expected = peft_alone(model, layout, recipe, document)
        for target, a, b in layout.factors(found[document.text].adapter.buffer):
            for ours, theirs in ((a, expected[target.name][0]), (b, expected[target.name][1])):
                difference = np.linalg.norm(ours - theirs.numpy()) / np.linalg.norm(theirs.numpy())
                assert difference <= 1e-3, (document.text, target.name)


def test_distilled_documents_match_peft_although_the_teacher_initially_agrees_with_the_student():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    recipe = DISTILL.changed(epochs=1, batch_size=2, rank=4, unrelated=2, with_passage=4)
    questions = [QA(f"Who has lamp {i}?", name, "cloze") for i, name in enumerate(["Ada", "Bo", "Cy", "Di"])]
    documents = distilled(engine, recipe, [(f"House {n} has lamps.", questions) for n in range(8)])
    layout = layout_of(engine.model, rank=recipe.rank)
    for trained in Trainer(engine, layout, recipe).train(documents):
        assert not all(e.keeps for e in plan(trained.document, recipe)[0])
        expected = peft_alone(engine.model, layout, recipe, trained.document)
        for target, a, b in layout.factors(trained.adapter.buffer):
            for ours, theirs in ((a, expected[target.name][0]), (b, expected[target.name][1])):
                assert np.linalg.norm(ours - theirs.numpy()) <= 1e-3 * np.linalg.norm(theirs.numpy())


def test_losses_decrease_and_the_model_is_unchanged():
    model = tiny_llama()
    before = {n: (p.clone(), p.requires_grad) for n, p in model.named_parameters()}
    layout = layout_of(model, rank=4)
    trainer = Trainer(Engine(model, tiny_tokenizer()), layout, PRAG.changed(rank=4, epochs=20, learning_rate=1e-2))
    for trained in trainer.train([random_document(1, 2), random_document(2, 2)]):
        assert trained.last_loss < 0.8 * trained.first_loss
        assert trained.steps == 40
        trained.adapter.check()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.requires_grad == before[name][1]
        assert parameter.grad is None
    assert not any("forward" in vars(m) for m in model.modules())


def test_equal_seeds_give_bitwise_equal_adapters_and_different_seeds_do_not():
    model = tiny_llama()
    layout = layout_of(model, rank=2)

    def adapters(seed):
        trainer = Trainer(Engine(model, tiny_tokenizer()), layout, PRAG.changed(seed=seed))
        return [t.adapter.buffer for t in trainer.train([random_document(i, 3) for i in range(3)])]

    assert all(np.array_equal(a, b) for a, b in zip(adapters(0), adapters(0), strict=True))
    assert not np.array_equal(adapters(0)[0], adapters(1)[0])


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_gemma3])
def test_logits_of_counted_tokens_equal_the_logits_of_the_model(make):
    model = make()
    examples = [Example((5, 6, 7, 8, 9), 2), Example((3, 4, 5), 1)]
    batch = batch_of([Pack((e,), 0) for e in examples], model.device)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7, 8, 9], [3, 4, 5, 0, 0]])).logits
        found = CountedLogits(model)(batch)
    assert batch.targets.tolist() == [7, 8, 9, 4, 5]
    assert torch.allclose(found, torch.cat([logits[0, 1:4], logits[1, 0:2]]), atol=1e-4)


def test_a_model_that_caps_its_logits_is_run_as_a_whole():
    model = tiny_gemma3(final_logit_softcapping=2.0)
    counted = CountedLogits(model)
    assert not counted._apart
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, 1]
        found = counted(batch_of([Pack((Example((5, 6, 7), 2),), 0)], model.device))
    assert torch.allclose(found[0], expected, atol=1e-5)


def test_sequences_with_and_without_a_teacher_share_a_batch():
    examples = [*random_document(0, 2).examples, *random_document(1, 2, teacher=True).examples]
    mixed = [examples[i] for i in (0, 2, 1, 3)]
    counted = CountedLogits(tiny_llama())

    def losses(*chosen):
        batch = batch_of([Pack((e,), 0) for e in chosen], torch.device("cpu"), weights=[0.5] * len(chosen))
        with torch.no_grad():
            return losses_of(counted(batch), batch)

    assert torch.allclose(losses(*mixed), torch.cat([losses(e) for e in mixed]), atol=1e-4)


def test_a_distillation_batch_shares_a_prefix_and_every_epoch_sees_every_sequence_once():
    told = [Example((5, 6, 7, i, 8), 4) for i in range(10, 17)]
    beside = [Example((5, *range(30, 60), i, 8), 32) for i in range(10, 15)]
    document = TrainingDocument("d", (*(x for pair in zip(told, beside, strict=False) for x in pair), *told[5:]))
    recipe = DISTILL.changed(epochs=2, batch_size=3)
    batches = plan(document, recipe)
    assert all(len({e.ids[:3] for e in batch}) == 1 for batch in batches)
    seen = [e.ids for batch in batches for e in batch]
    assert sorted(seen[:12]) == sorted(seen[12:]) == sorted(e.ids for e in document.examples)
    assert seen[:12] != seen[12:]


def test_a_fraction_of_the_layers_is_counted_from_the_last_layer():
    model = tiny_llama()
    count = model.config.num_hidden_layers
    assert layout_of(model, rank=2, layers=1 / count) == layout_of(model, rank=2, layers=(-1,))
    assert layout_of(model, rank=2, layers=1.0) == layout_of(model, rank=2)
    assert layout_of(model, rank=2, layers=0.01) == layout_of(model, rank=2, layers=(count - 1,))


@pytest.mark.parametrize("layers", [(0,), (1,), (-1,)])
def test_computing_the_layers_below_the_adapters_once_does_not_change_the_result(layers):
    model = tiny_llama()
    recipe = PRAG.changed(epochs=3, batch_size=2, layers=layers)
    layout = layout_of(model, rank=2, layers=layers)
    documents = [random_document(i, 3) for i in range(3)]
    trainer = Trainer(Engine(model, tiny_tokenizer()), layout, recipe)
    spared = {t.document.text: t.adapter.buffer for t in trainer.train(documents)}
    assert trainer._losses._lower.count == layers[0] % model.config.num_hidden_layers
    trainer._losses._lower.count = 0
    for trained in trainer.train(documents):
        assert np.abs(trained.adapter.buffer - spared[trained.document.text]).max() < 1e-4


def test_the_divergence_covers_the_top_tokens_and_one_outcome_for_the_rest():
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((4, 30)), rng.standard_normal((4, 30)) * 2
    p = np.exp(teacher) / np.exp(teacher).sum(1, keepdims=True)
    q = np.exp(student) / np.exp(student).sum(1, keepdims=True)
    top = np.argsort(-p, 1)[:, :6]
    expected = []
    for i in range(4):
        outcomes = [(p[i, v], q[i, v]) for v in top[i]] + [(1 - p[i, top[i]].sum(), 1 - q[i, top[i]].sum())]
        expected.append(sum(a * np.log(a / b) for a, b in outcomes))
    logprobs = torch.from_numpy(np.log(np.take_along_axis(p, top, 1))).float()
    found = divergence(torch.from_numpy(student).float(), torch.from_numpy(top), logprobs)
    assert np.allclose(found.numpy(), expected, atol=1e-4)
    whole = divergence(torch.from_numpy(teacher).float(), torch.from_numpy(top), logprobs)
    assert whole.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (TrainingDocument("nothing", ()), "nothing to train on"),
        (TrainingDocument("long", (Example(tuple(range(200)), 1),)), "max_tokens=100"),
    ],
)
def test_documents_that_cannot_be_trained_are_rejected_before_any_training(document, message):
    model = tiny_llama()
    trainer = Trainer(Engine(model, tiny_tokenizer()), layout_of(model, rank=2), PRAG.changed(max_tokens=100))
    with pytest.raises(ConfigurationError, match=message):
        next(iter(trainer.train([random_document(0, 2), document])))
