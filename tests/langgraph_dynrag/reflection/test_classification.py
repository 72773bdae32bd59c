"""Probabilities of answer options, against a sum over all texts of a small language model."""

import itertools
import math

import numpy as np
import pytest

from langgraph_dynrag.reflection.classification import masses, shares, surface_forms
from rag_backbone.errors import ConfigurationError


def language(seed, tokens=5, length=4):
    """Build a random language model over a few tokens: the distribution after each sequence."""
    rng = np.random.default_rng(seed)
    return {
        begun: np.log(rng.dirichlet(np.ones(tokens)))
        for n in range(length)
        for begun in itertools.product(range(tokens), repeat=n)
    }


def from_all_texts(model, options, length=4, tokens=5):
    """Sum the probability of every text that starts with a form of the option and no longer form of another one."""
    found = dict.fromkeys(options, 0.0)
    forms = [(form, name) for name, all_forms in options.items() for form in all_forms]
    for text in itertools.product(range(tokens), repeat=length):
        probability = math.exp(sum(model[text[:t]][text[t]] for t in range(length)))
        fitting = []
        for form, name in forms:
            others = [f for f, other in forms if other != name]
            # Only as many positions as are needed to tell the form from all other options.
            parts = next((n for n in range(1, len(form)) if not any(f[:n] == form[:n] for f in others)), len(form))
            if text[:parts] == form[:parts]:
                fitting.append((parts, name))
        if fitting:
            found[max(fitting)[1]] += probability
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"yes": [(0,), (1,)], "no": [(2,), (3,)]},
        {"yes": [(4, 0)], "no": [(4, 1)]},  # a shared first token: the second position decides
        {"a": [(0, 1, 2)], "b": [(0, 1, 3)], "c": [(0, 2)], "d": [(1,)]},
        {"one": [(1,)], "ten": [(1, 0)]},  # a prefix of another option
        {"full": [(0, 1), (2,)], "partial": [(0, 2), (3, 3)], "none": [(0,), (3, 2)]},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_masses_match_the_sum_over_all_texts(options, seed):
    model = language(seed)
    asked_for = []

    def next_logprobs(begun, tokens):
        asked_for.append(begun)
        return [model[begun][t] for t in tokens]

    expected = from_all_texts(model, options)
    found = masses(options, next_logprobs)
    assert found == pytest.approx(expected, abs=1e-9)
    total = sum(expected.values())
    assert shares(options, next_logprobs) == pytest.approx({k: v / total for k, v in expected.items()}, abs=1e-9)


def test_options_with_distinct_first_tokens_need_one_position():
    asked_for = []

    def next_logprobs(begun, tokens):
        asked_for.append((begun, tuple(tokens)))
        return [math.log(0.25)] * len(tokens)

    options = {"yes": [(5, 6, 7), (8,)], "no": [(9, 6, 7)]}
    assert masses(options, next_logprobs) == {"yes": 0.5, "no": 0.25}
    assert asked_for == [((), (5, 8, 9))]


def test_options_with_the_same_tokens_are_rejected():
    with pytest.raises(ConfigurationError, match=r"'no' and 'yes' have the same tokens \[3\]"):
        masses({"yes": [(3,)], "no": [(3,)]}, lambda *_: [0.0])
    with pytest.raises(ConfigurationError, match="without tokens"):
        masses({"yes": [()], "no": [(3,)]}, lambda *_: [0.0])


def test_options_that_cannot_occur_are_equally_likely():
    assert shares({"yes": [(1,)], "no": [(2,)]}, lambda _, tokens: [-math.inf] * len(tokens)) == {"yes": 0.5, "no": 0.5}


def test_surface_forms_of_a_word():
    assert surface_forms("Yes") == ("Yes", " Yes", "yes", " yes", "YES", " YES")
    assert surface_forms("5") == ("5", " 5")
