"""Parameters of sampled continuations, and of the parts that read them."""

import math

import pytest

from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.queries import KnownWords
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.triggers import SelfAwareUncertainty
from rag_backbone.errors import ConfigurationError


def test_the_layer_is_a_fraction_of_the_depth():
    spec = SampleSpec()
    assert [spec.layer_of(n) for n in (32, 30, 24, 16, 3, 1)] == [15, 14, 11, 7, 1, 0]
    assert SampleSpec(layer=0.999).layer_of(32) == 31


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SampleSpec(samples=0), "samples is 0; at least 1"),
        (lambda: SampleSpec(max_tokens=0), "max_tokens is 0"),
        (lambda: SampleSpec(temperature=0), "temperature is 0; it must be positive, otherwise all samples"),
        (lambda: SampleSpec(top_p=1.5), "top_p is 1.5"),
        (lambda: SampleSpec(top_k=-1), "top_k is -1"),
        (lambda: SampleSpec(layer=1.0), "layer is 1.0; a fraction"),
        (lambda: SampleSpec(state="attention"), "'attention'; known: 'layer', 'mlp'"),
        (lambda: SelfAwareUncertainty(math.inf), "threshold is inf"),
        (lambda: SelfAwareUncertainty(alpha=0), "alpha is 0"),
        (lambda: LeastUncertain(alpha=0), "alpha is 0"),
        (lambda: KnownWords(2), "max_doubt is 2"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
