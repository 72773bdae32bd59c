"""Tests that answers after kept prompts have the losses, gradients and adapters of whole sequences."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.training.lower_layers import LowerLayers
from llamaindex_prag.training.objective import CountedLogits, batch_of
from llamaindex_prag.training.packs import packs_of, rows_of
from llamaindex_prag.training.prompt_states import PromptState, PromptStates, answer_of, answer_rows
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.engine.engine import Engine
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.training.documents import random_document
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

FAMILIES = {"llama": tiny_llama, "qwen2": tiny_qwen2, "gemma3": lambda: tiny_gemma3(sliding_window=64)}


@pytest.fixture(params=FAMILIES)
def model(request):
    return FAMILIES[request.param]()


def states_of(model, layers):
    lower = LowerLayers(model, layout_of(model, rank=2, layers=layers))
    return PromptStates(model, lower, CountedLogits(model))


@pytest.mark.parametrize("limit", [1, 12, 100], ids=["a row each", "some together", "one row"])
@pytest.mark.parametrize("layers", [None, (1, 2)], ids=["all layers", "upper layers"])
def test_logits_of_answers_are_those_of_whole_sequences(model, layers, limit):
    prompts = states_of(model, layers)
    assert prompts.usable
    examples = [*random_document(0, 4, teacher=True).examples, Example((7, 8), 1), Example((5, 6, 7, 8, 9), 4)]
    packed = packs_of(examples, 200)
    ordered = [e for pack in packed for e in pack.examples]
    with torch.no_grad():
        states = prompts.read(rows_of(packed, 0, model.device))
        rows = answer_rows([answer_of(e) for e in ordered], limit)
        found = prompts(batch_of(rows, model.device), states)
        expected = [model(torch.tensor([e.ids])).logits[0, e.counted_from - 1 : -1].float() for e in ordered]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-3)


def test_kept_prompts_give_the_same_losses_and_gradients(model):
    engine = Engine(model, tiny_tokenizer())
    layout = layout_of(model, rank=2, layers=(1, 2))
    start = torch.from_numpy(np.stack([random_values(layout, i) for i in range(2)]))
    examples = {i: list(random_document(i, 5, teacher=True).examples) for i in range(2)}
    found = []
    for kept in (True, False):
        factors = DocumentFactors(model, layout, start, 2, 1.5)
        losses = DocumentLosses(engine, layout, 64, acts_from="answer")
        states = losses.lower_states([e for group in examples.values() for e in group]) if kept else {}
        assert len(states) == (10 if kept else 0)
        found.append((losses.backward(factors, examples, states), factors.gradients.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-3)
    assert found[0][1].abs().max() > 1e-3


def test_answers_fill_rows_up_to_a_limit():
    answers = [Example(tuple(range(1, 1 + n)), 1) for n in (3, 4, 2, 9, 5)]
    rows = answer_rows(answers, 7)
    assert [[len(e.ids) for e in row.examples] for row in rows] == [[3, 4], [2], [9], [5]]  # one may be longer alone
    assert [e for row in rows for e in row.examples] == answers


def test_prompts_longer_than_a_sliding_window_are_run_as_a_whole():
    model = tiny_gemma3(sliding_window=8)
    layout = layout_of(model, rank=2, layers=(1, 2))
    losses = DocumentLosses(Engine(model, tiny_tokenizer()), layout, 512, acts_from="answer")
    short, long = [Example((5, 6, 7, 8, 9), 3)], [Example(tuple(range(5, 25)), 17)]
    assert all(isinstance(state, PromptState) for state in losses.lower_states(short).values())
    states = losses.lower_states(long)
    assert not any(isinstance(state, PromptState) for state in states.values())
    factors = DocumentFactors(model, layout, torch.from_numpy(random_values(layout, 0)), 1, 1.5)
    assert losses.values(factors, {0: long}, states) == pytest.approx(losses.values(factors, {0: long}, {}), rel=1e-4)


def test_only_answers_are_run_forward_and_backward_and_none_is_padded_to_the_longest():
    model = tiny_llama()
    layout = layout_of(model, rank=2, layers=(1, 2))
    losses = DocumentLosses(Engine(model, tiny_tokenizer()), layout, 512, acts_from="answer")
    examples = [Example((*range(5, 45), *range(50, 52 + i)), 40) for i in range(6)]
    states = losses.lower_states(examples)
    tokens = []
    model.get_decoder().layers[1].register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[:2].numel()))
    losses.backward(DocumentFactors(model, layout, torch.zeros(layout.size), 1, 1.0), {0: examples}, states)
    assert sum(tokens) == sum(1 + 2 + i for i in range(6))  # the last token of the prompt, and the answer


def test_adapters_are_the_same_if_the_model_cannot_continue_from_a_cache(monkeypatch):
    model = tiny_llama()
    recipe = DISTILL.changed(epochs=2, batch_size=3, rank=2, acts_from="answer")
    layout = layout_of(model, rank=2, layers=recipe.layers)
    documents = [random_document(i, 5, teacher=True) for i in range(3)]

    def trained():
        trainer = Trainer(Engine(model, tiny_tokenizer()), layout, recipe)
        return {t.document.text: t.adapter.buffer for t in trainer.train(documents)}

    kept = trained()
    monkeypatch.setattr(PromptStates, "_tried", lambda *_: False)
    whole = trained()
    for text, buffer in whole.items():
        assert np.linalg.norm(kept[text] - buffer) <= 1e-3 * np.linalg.norm(buffer)
