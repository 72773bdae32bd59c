"""Losses of the counted tokens, and the logits that they need."""

import numpy as np
import pytest
import torch

from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.objective import CountedLogits, batch_of, divergence, losses_of
from llamaindex_prag.training.packs import Pack
from tests.llamaindex_prag.training.documents import random_document
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2


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
    assert not counted.apart
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
