"""Formulas for single tokens compared with NumPy and transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from rag_backbone.engine.sampling import Sampler, Sampling, greedy
from rag_backbone.errors import ConfigurationError

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 3}, {0, 1, 2}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.83}, {0, 1, 2}),  # 0.5 + 0.3 < 0.83
        ({"top_p": 0.83, "top_k": 3}, {0, 1}),  # (0.5 + 0.3) / 0.95 > 0.83: top-k comes first
        ({"top_p": 0.83, "temperature": 2.0}, {0, 1, 2}),  # the square roots are 0.38, 0.29, 0.21 and 0.12 of their sum
        ({"top_p": 0.9, "temperature": 2.0}, {0, 1, 2, 3}),
        ({"top_p": 0.01}, {0}),
    ],
)
def test_only_the_likeliest_tokens_are_drawn(options, kept):
    """By hand, for the probabilities 0.5, 0.3, 0.15 and 0.05: temperature, then top-k, then top-p."""
    sampler = Sampler(Sampling(**{"temperature": 1.0, "seed": 0, **options}), "cpu")
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert {int(sampler(logits)) for _ in range(300)} == kept


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.7), (12, 0.6), (1, 0.9), (40, 0.95)])
def test_draws_follow_the_distribution_of_transformers_processors(top_k, top_p):
    torch.manual_seed(1)
    logits = torch.randn(40) * 2
    kept = TopKLogitsWarper(top_k or 40)(None, logits[None] / 0.8)
    expected = torch.softmax(TopPLogitsWarper(top_p)(None, kept)[0], -1)
    sampler = Sampler(Sampling(0.8, top_p, top_k, seed=0), "cpu")
    drawn = torch.stack([sampler(logits) for _ in range(4000)])
    assert set(drawn.tolist()) <= set(expected.nonzero()[:, 0].tolist())
    assert (torch.bincount(drawn, minlength=40) / 4000 - expected).abs().max() < 4 * math.sqrt(0.25 / 4000)


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
