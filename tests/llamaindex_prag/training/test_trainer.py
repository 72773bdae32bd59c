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
from llamaindex_prag.training.examples import Example, TrainingDocument
from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.training.null_space import NullSpace
from llamaindex_prag.training.objective import divergence
from llamaindex_prag.training.trainer import Trainer, plan
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.training.documents import random_document
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer


def peft_alone(model, layout, recipe, document, allowed=None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Train one document with PEFT's layers, full logits, one sequence per forward pass, and torch's AdamW.

    `allowed` are (inputs, inputs) matrices, one per target, onto whose range `A` and its gradients are projected.
    """
    late = recipe.acts_from == "answer"
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=list(recipe.targets),
        task_type="CAUSAL_LM",
        alora_invocation_tokens=[1] if late else None,  # the place is given with each sequence below
    )
    wrapped = get_peft_model(copy.deepcopy(model), config)
    start = initial_values(layout, recipe.seed).numpy()
    layers = {}
    for target, a, _ in layout.factors(start):
        layer = wrapped.base_model.model.get_submodule(target.name)
        layer.lora_A["default"].weight.data = torch.from_numpy(a.copy())
        layers[target.name] = layer
    projected = list(zip((layer.lora_A["default"].weight for layer in layers.values()), allowed or [], strict=False))
    for a, onto in projected:
        a.data = a.data @ onto
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
            place = {"alora_offsets": [example.counted + 1]} if late else {}  # counted from the end
            logits = wrapped(input_ids=torch.tensor([example.ids]), **place).logits[0].float()
            logits = logits[example.counted_from - 1 : -1]
            if example.teacher is None:
                targets = torch.tensor(example.ids[example.counted_from :])
                loss = functional.cross_entropy(logits, targets, reduction="sum")
            else:
                loss = divergence(logits, example.teacher.ids, example.teacher.logprobs).sum()
            (loss / counted).backward()
        for a, onto in projected:
            a.grad = a.grad @ onto
        optimiser.step()
        for a, onto in projected:
            a.data = a.data @ onto
        rates.step()
        optimiser.zero_grad()
    return {
        n: (layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach())
        for n, layer in layers.items()
    }


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
@pytest.mark.parametrize(
    "recipe",
    [
        PRAG.changed(epochs=2),
        DISTILL.changed(epochs=3, batch_size=3, rank=4, weight_decay=0.01),
        DISTILL.changed(epochs=3, batch_size=3, rank=4, acts_from="answer"),
    ],
    ids=lambda r: f"{r.name} from the {r.acts_from}",
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


def test_adapters_without_what_answers_have_in_common_match_peft_with_projected_factors():
    recipe = DISTILL.changed(epochs=3, batch_size=3, rank=4, acts_from="answer", null_space=0.8)
    engine = Engine(tiny_llama(), tiny_tokenizer())
    layout = layout_of(engine.model, rank=recipe.rank)
    documents = [random_document(i, n, teacher=True) for i, n in enumerate([5, 3, 4])]
    columns = NullSpace.of(engine, layout, 0.8).directions
    allowed = [torch.eye(len(v)) - v @ v.T for v in columns]
    for trained in Trainer(engine, layout, recipe, tokens_at_once=64).train(documents):
        expected = peft_alone(engine.model, layout, recipe, trained.document, allowed)
        for target, a, b in layout.factors(trained.adapter.buffer):
            for ours, theirs in ((a, expected[target.name][0]), (b, expected[target.name][1])):
                assert np.linalg.norm(ours - theirs.numpy()) <= 1e-3 * np.linalg.norm(theirs.numpy())


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
