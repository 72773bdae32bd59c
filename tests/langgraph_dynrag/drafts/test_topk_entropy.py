"""Entropy bounds from a few alternatives hold and are attained."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.topk_entropy import entropy_bounds, entropy_of_entry
from rag_backbone.errors import ConfigurationError


def exact(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


distributions = st.tuples(
    st.integers(2, 200), st.floats(0.01, 6.0), st.integers(0, 10**6), st.integers(1, 25)
)  # vocabulary, sharpness, seed, alternatives


@given(distributions)
def test_the_entropy_lies_between_the_bounds(drawn):
    size, sharpness, seed, k = drawn
    logits = np.random.default_rng(seed).standard_normal(size) * sharpness
    p = np.sort(np.exp(logits - logits.max()))[::-1]
    p /= p.sum()
    k = min(k, size)
    bounds = entropy_bounds(np.log(p[:k]).tolist(), vocabulary=size)
    assert bounds.lower - 1e-9 <= exact(p) <= bounds.upper + 1e-9
    assert entropy_bounds(np.log(p[:k]).tolist()) == type(bounds)(bounds.lower, None)


@given(distributions, st.integers(0, 199))
def test_bounds_hold_if_a_sampled_token_is_listed_with_the_top_alternatives(drawn, at):
    size, sharpness, seed, k = drawn
    logits = np.random.default_rng(seed).standard_normal(size) * sharpness
    p = np.sort(np.exp(logits - logits.max()))[::-1]
    p /= p.sum()
    k, at = min(k, size), at % size
    # Like vLLM: the sampled token first, whatever its rank, then the most likely ones, k in total.
    listed = list(dict.fromkeys([at, *range(k)]))[:k]
    entry = {
        "token": str(at),
        "logprob": math.log(p[at]),
        "top_logprobs": [{"token": str(i), "logprob": math.log(p[i])} for i in listed],
    }
    assert entropy_of_entry(entry) <= exact(p) + 1e-9


def test_bounds_match_a_worked_example():
    # 0.5 and 0.2 are known; the remaining 0.3 is split with at most 0.2 each: 0.2 and 0.1.
    expected = -sum(p * math.log(p) for p in (0.5, 0.2, 0.2, 0.1))
    bounds = entropy_bounds([math.log(0.5), math.log(0.2)], vocabulary=5)
    assert bounds.lower == pytest.approx(expected)
    assert bounds.upper == pytest.approx(-sum(p * math.log(p) for p in (0.5, 0.2, 0.1, 0.1, 0.1)))


def test_bounds_are_exact_if_all_alternatives_are_known():
    p = np.array([0.4, 0.3, 0.2, 0.1])
    bounds = entropy_bounds(np.log(p).tolist(), vocabulary=4)
    assert (bounds.lower, bounds.upper) == (pytest.approx(exact(p)), pytest.approx(exact(p)))


def test_the_token_alone_gives_a_bound_without_alternatives():
    entry = {"token": "a", "logprob": math.log(0.25), "top_logprobs": []}
    assert entropy_of_entry(entry) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


def test_more_tokens_than_the_vocabulary_size_are_refused():
    with pytest.raises(ConfigurationError, match="3 tokens are known, but the vocabulary has only 2"):
        entropy_bounds([-1.0, -2.0, -3.0], vocabulary=2)
