"""Formulas for single tokens compared with NumPy and transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from rag_backbone.engine.sampling import Sampler, Sampling, greedy, keep_likeliest
from rag_backbone.engine.signals import distribution

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40)


@given(LOGITS)
def test_log_partition_and_entropy(values):
    x = np.array(values, np.float64)
    p = np.exp(x - x.max())
    p /= p.sum()
    entropy = -sum(q * math.log(q) for q in p if q > 0)
    log_z, found = distribution(torch.tensor([values]), entropy=True)
    assert log_z[0].item() == pytest.approx(math.log(np.exp(x - x.max()).sum()) + x.max(), abs=1e-4)
    assert found[0].item() == pytest.approx(entropy, abs=1e-4)


def test_impossible_tokens_do_not_affect_the_entropy():
    _, entropy = distribution(torch.tensor([0.0, 0.0, -math.inf]), entropy=True)
    assert entropy.item() == pytest.approx(math.log(2))


@settings(deadline=None)
@given(LOGITS, st.integers(0, 45), st.floats(0.05, 1.0))
def test_the_kept_tokens_match_those_of_transformers(values, k, p):
    logits = torch.tensor(values)
    expected = logits[None]
    if 0 < k < len(values):
        expected = TopKLogitsWarper(k)(None, expected)
    if p < 1:
        expected = TopPLogitsWarper(p)(None, expected)
    assert torch.equal(keep_likeliest(logits, k, p), expected[0])


@given(LOGITS)
def test_greedy_takes_the_first_of_the_largest_logits(values):
    assert greedy(torch.tensor(values)).item() == int(np.argmax(np.array(values, np.float32)))


def test_samples_follow_the_distribution():
    sampler = Sampler(Sampling(temperature=1.0, seed=3), "cpu")
    logits = torch.tensor([0.0, math.log(2), math.log(5)])
    counts = np.bincount([int(sampler(logits)) for _ in range(4000)], minlength=3) / 4000
    assert counts == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
