"""The lower entropy bound from a few alternatives holds and is attained."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.topk_entropy import entropy_of_entry, least_entropy


def exact(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


distributions = st.tuples(
    st.integers(2, 200), st.floats(0.01, 6.0), st.integers(0, 10**6), st.integers(1, 25)
)  # vocabulary, sharpness, seed, alternatives


@given(distributions)
def test_the_entropy_is_not_below_the_bound(drawn):
    size, sharpness, seed, k = drawn
    logits = np.random.default_rng(seed).standard_normal(size) * sharpness
    p = np.sort(np.exp(logits - logits.max()))[::-1]
    p /= p.sum()
    k = min(k, size)
    assert least_entropy(np.log(p[:k]).tolist()) <= exact(p) + 1e-9


@given(distributions, st.integers(0, 199))
def test_the_bound_holds_if_a_sampled_token_is_listed_with_the_top_alternatives(drawn, at):
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


def test_the_bound_matches_a_worked_example():
    # 0.5 and 0.2 are known; the remaining 0.3 is split with at most 0.2 each: 0.2 and 0.1.
    expected = -sum(p * math.log(p) for p in (0.5, 0.2, 0.2, 0.1))
    assert least_entropy([math.log(0.5), math.log(0.2)]) == pytest.approx(expected)


def test_the_bound_is_exact_if_all_alternatives_are_known():
    p = np.array([0.4, 0.3, 0.2, 0.1])
    assert least_entropy(np.log(p).tolist()) == pytest.approx(exact(p))


def test_the_token_alone_gives_a_bound_without_alternatives():
    entry = {"token": "a", "logprob": math.log(0.25), "top_logprobs": []}
    assert entropy_of_entry(entry) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
