"""Losses over a part of the vocabulary, against a plain statement of the formula and against the full softmax."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL, PRAG, Recipe, get_recipe
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.examples import Example, Teacher, TrainingDocument
from llamaindex_prag.training.objective import losses_at
from llamaindex_prag.training.sampled_softmax import SampledOutput
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.training.documents import random_document
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

VOCABULARY, HIDDEN = 50, 6
TOLD = Example((9, 9, 7, 3), 2)
TAUGHT = Example(
    (9, 9, 5, 7), 2, Teacher(torch.tensor([[5, 8], [7, 3]]), torch.tensor([[0.5, 0.25], [0.6, 0.3]]).log())
)
KEPT = torch.tensor([3, 5, 7, 8, 7])


def head_of(*, bias: bool) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(HIDDEN, VOCABULARY, bias=bias)


def plain_losses(states, weight, bias, drawn) -> np.ndarray:
    """State the formula token by token: every drawn token stands for `others / drawn` tokens."""
    kept = sorted({int(v) for v in KEPT})
    counts = dict.fromkeys(kept, 1.0) | dict.fromkeys(drawn, (VOCABULARY - len(kept)) / len(drawn))
    losses = []
    for row, state in enumerate(states):
        z = sum(times * np.exp(weight[v] @ state + bias[v]) for v, times in counts.items())
        p = {v: np.exp(weight[v] @ state + bias[v]) / z for v in kept}
        if row < 2:
            losses.append(-np.log(p[TOLD.ids[2 + row]]))
            continue
        ids, told = TAUGHT.teacher.ids[row - 2].tolist(), TAUGHT.teacher.logprobs[row - 2].exp().double().tolist()
        outcomes = [(t, p[v]) for t, v in zip(told, ids, strict=True)] + [(1 - sum(told), 1 - sum(p[v] for v in ids))]
        losses.append(sum(t * np.log(t / s) for t, s in outcomes))
    return np.array(losses)


@pytest.mark.parametrize("bias", [False, True])
def test_losses_and_their_gradients_are_those_of_the_formula(bias):
    head, step = head_of(bias=bias), 3
    states = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(1), requires_grad=True)
    output = SampledOutput(head, KEPT, 12, seed=5).drawn(step)
    losses = losses_at(output.logits(states), torch.tensor([7, 3, 5, 7]), [TOLD, TAUGHT], output.columns)
    losses.sum().backward()
    weight = head.weight.detach().double().numpy()
    shift = head.bias.detach().double().numpy() if bias else np.zeros(VOCABULARY)
    # The drawn tokens, found by their rows.
    drawn = [int((head.weight == row).all(1).nonzero()) for row in output.weight[4:]]
    assert len(set(drawn)) == 12
    assert not set(drawn) & {3, 5, 7, 8}
    at = states.detach().double().numpy()
    assert np.allclose(losses.detach().numpy(), plain_losses(at, weight, shift, drawn), atol=1e-5)
    for row in range(4):
        for place in range(HIDDEN):
            moved = np.zeros_like(at)
            moved[row, place] = 1e-5
            above, below = (plain_losses(at + sign * moved, weight, shift, drawn).sum() for sign in (1, -1))
            assert abs(float(states.grad[row, place]) - (above - below) / 2e-5) < 1e-4


def test_the_normaliser_is_unbiased_and_every_token_is_drawn():
    head = head_of(bias=False)
    state = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(2))
    output = SampledOutput(head, KEPT, 23, seed=0)  # two steps draw each of the 46 others once
    with torch.no_grad():
        found = torch.stack([output.drawn(step).logits(state).exp().sum() for step in range(4)])
        expected = head(state).exp().sum()
    assert not torch.allclose(found[0], expected)
    assert torch.allclose(found[:2].mean(), expected)
    assert torch.allclose(found[2:], found[:2])


def trained(recipe: Recipe, *, make=tiny_llama, together: int = 3):
    model = make()
    documents = [random_document(i, n, teacher=True) for i, n in enumerate([5, 3, 4])]
    # Some sequences without a teacher, for which the base model says what is likely.
    documents = [
        TrainingDocument(d.text, (*d.examples, *(Example(e.ids, e.counted_from) for e in d.examples[:2])))
        for d in documents
    ]
    trainer = Trainer(
        Engine(model, tiny_tokenizer()),
        layout_of(model, rank=recipe.rank),
        recipe,
        documents_at_once=together,
        tokens_at_once=64,
    )
    return {t.document.text: t for t in trainer.train(documents)}


SMALL = DISTILL.changed(epochs=2, batch_size=3, rank=4)


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2])
@pytest.mark.parametrize("acts_from", ["prompt", "answer"])
def test_a_sample_of_the_whole_vocabulary_gives_the_adapters_of_the_full_softmax(make, acts_from):
    full = trained(SMALL.changed(acts_from=acts_from), make=make)
    found = trained(SMALL.changed(acts_from=acts_from, sampled_softmax=10**6), make=make)
    for text, expected in full.items():
        buffer = expected.adapter.buffer
        assert np.linalg.norm(found[text].adapter.buffer - buffer) <= 1e-3 * np.linalg.norm(buffer)
        assert abs(found[text].first_loss - expected.first_loss) < 1e-4
        assert abs(found[text].last_loss - expected.last_loss) < 1e-4


def test_an_adapter_depends_on_the_seed_and_not_on_the_documents_it_was_trained_with():
    recipe = SMALL.changed(acts_from="answer", sampled_softmax=20)
    one, again, alone, other = (
        trained(recipe),
        trained(recipe),
        trained(recipe, together=1),
        trained(recipe.changed(sampled_softmax=21)),
    )
    for text, expected in one.items():
        buffer = expected.adapter.buffer
        assert np.array_equal(again[text].adapter.buffer, buffer)
        assert np.linalg.norm(alone[text].adapter.buffer - buffer) <= 1e-3 * np.linalg.norm(buffer)
        assert np.linalg.norm(other[text].adapter.buffer - buffer) > 2e-3 * np.linalg.norm(
            buffer
        )  # few are left to draw


def test_the_sample_is_part_of_the_recipe_and_old_keys_stay():
    recipe = get_recipe("distill", sampled_softmax=4000)
    assert recipe.key != DISTILL.key
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert "sampled_softmax" not in DISTILL.to_dict()


def test_what_cannot_be_sampled_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="sampled_softmax is 0; at least 1"):
        get_recipe("distill", sampled_softmax=0)
    with pytest.raises(ConfigurationError, match="sampled_softmax is 4000, but objective='next_token'"):
        PRAG.changed(sampled_softmax=4000)

    def capped():
        return tiny_gemma3(final_logit_softcapping=2.0)

    with pytest.raises(ConfigurationError, match=r"Gemma3ForCausalLM scales or caps them"):
        trained(SMALL.changed(sampled_softmax=20), make=capped)
