"""Formulas for single tokens compared with NumPy and transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from rag_backbone.engine.sampling import Sampler, Sampling, greedy, keep_likeliest
from rag_backbone.errors import ConfigurationError

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(temperature=-1), "temperature"),
        (lambda: Sampling(temperature=float("nan")), "temperature"),
        (lambda: Sampling(top_p=0), "top_p"),
        (lambda: Sampling(top_p=1.1), "top_p"),
        (lambda: Sampling(top_k=-1), "top_k"),
    ],
)
def test_options_out_of_range_are_named_in_the_error(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
