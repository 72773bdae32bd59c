"""Formulas of the signals compared with NumPy, and log-probabilities of named tokens at every step."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import NextTokens, Signals, distribution
from rag_backbone.errors import ConfigurationError
from tests.rag_backbone.engine.references import ids_of

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


def test_each_row_of_a_batch_has_its_own_statistics():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 5.0, 5.0, -math.inf]])
    first, second = NextTokens.of(logits, entropy=True).rows()
    assert (first.log_z, first.entropy) == pytest.approx((math.log(4), math.log(4)))
    assert (second.likeliest, second.largest) == (1, 5.0)
    assert second.log_z == pytest.approx(math.log(math.e + 2 * math.e**5), abs=1e-5)


def test_entropies_are_left_out_unless_requested():
    batch = NextTokens.of(torch.tensor([[0.0, 1.0]]), entropy=False)
    assert batch.entropy is None
    assert batch.rows()[0].entropy is None


def test_the_logits_are_not_modified():
    logits = torch.tensor([[0.5, -2.0, 7.0]])
    before = logits.clone()
    NextTokens.of(logits, entropy=True)
    assert torch.equal(logits, before)


def test_a_negative_number_of_alternatives_is_refused():
    with pytest.raises(ConfigurationError, match="top_logprobs is -1; it must be 0 or more"):
        Signals(top_logprobs=-1)


def test_named_tokens_have_the_probabilities_of_a_forward_pass_over_the_whole_text(tiny_lm):
    named = (7, 250, 2, 31)
    ids = ids_of("Who built the bridge?")
    made = tiny_lm.engine.generate(Request(ids, 9, signals=Signals(tokens=named, entropy=True)))
    with torch.inference_mode():
        logits = tiny_lm.engine.model(torch.tensor([ids + made.token_ids])).logits[0].float()
    expected = torch.log_softmax(logits[len(ids) - 1 :], -1)
    for t, step in enumerate(made.steps):
        assert step.token_logprobs == pytest.approx(expected[t, list(named)].tolist(), abs=1e-4)
    assert tiny_lm.engine.generate(Request(ids, 3)).steps[0].token_logprobs == ()


def test_a_bias_does_not_change_what_is_reported(tiny_lm):
    ids = ids_of("The river rose")
    plain, biased = (
        tiny_lm.engine.generate(
            Request(ids, 1, sampling=Sampling(logit_bias=bias), signals=Signals(tokens=(5, 300)))
        ).steps[0]
        for bias in ({}, {5: float("-inf"), 300: 40.0})
    )
    assert biased.token_id == 300 != plain.token_id
    assert biased.token_logprobs == pytest.approx(plain.token_logprobs, abs=1e-5)


def test_negative_ids_are_refused():
    with pytest.raises(ConfigurationError, match="tokens contains -1"):
        Signals(tokens=(4, -1))
