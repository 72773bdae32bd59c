"""Which passages act through their adapters, and what happens to the rest."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.placer import NO_ADAPTER, Placer, best_scored, usable_scores
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.made import random_values


def test_best_scored_counts_equal_passages_once_and_skips_none():
    assert best_scored(["a", None, "b", "a"], [0.1, 9.0, 0.5, 0.9], 1) == [3, 0]
    assert best_scored(["a", "b"], None, 1) == [0]
    assert best_scored([None], [1.0], 3) == []
    assert best_scored([], [], 1) == []


@given(st.lists(st.tuples(st.sampled_from("abc") | st.none(), st.floats(-2, 2)), max_size=8), st.integers(0, 4))
def test_best_scored_is_the_head_of_a_stable_sort(passages, count):
    identities, scores = [i for i, _ in passages], [s for _, s in passages]
    chosen, order = [], sorted(range(len(passages)), key=lambda i: -scores[i])
    for i in order:
        if identities[i] is not None and identities[i] not in chosen and len(chosen) < count:
            chosen.append(identities[i])
    assert best_scored(identities, scores, count) == [i for i in order if identities[i] in chosen]


@pytest.mark.parametrize(
    ("scores", "weights"),
    [
        ([0.5, -1.0], [0.5, 0.0]),
        ([None, 0.5], [1.0, 0.5]),
        ([float("nan"), 2.0], [0.0, 2.0]),
        ([float("inf"), 2.0], [0.0, 2.0]),
        ([-3.0, -1.0], [1.0, 1.0]),
        ([], []),
    ],
)
def test_scores_become_weights_that_are_not_negative(scores, weights):
    assert usable_scores(scores) == weights


@pytest.fixture
def keys(model):
    return [model.key(f"text {i}") for i in range(3)]


def place(model, keys, scores, **options):
    n = len(keys)
    return Placer(model, **options).place(keys, question="", strengths=[1.0] * n, scores=scores, dates=[None] * n)


def test_by_default_the_best_scored_passage_acts_alone(model, keys):
    placed = place(model, [keys[0], None, keys[1]], [0.2, 0.9, 0.5])
    assert (placed.in_weights, placed.in_prompt) == ((2,), {1: NO_ADAPTER})
    assert placed.selection.keys == (keys[1],)
    assert placed.left_out == {0: "another passage has a better score, and 1 may act through adapters (max_active)"}


def test_several_passages_act_in_their_order_with_equal_weights(model, keys):
    placed = place(model, keys, [0.1, 0.9, 0.5], max_active=2, others="context")
    assert (placed.in_weights, placed.selection.keys) == ((1, 2), tuple(keys[1:]))
    assert placed.selection.weights == (0.5, 0.5)
    assert (list(placed.in_prompt), placed.left_out) == ([0], {})


def test_passages_beyond_the_models_limit_are_told_so(model, keys):
    placed = place(model, [*keys, model.key("text 3")], [0.4, 0.3, 0.2, 0.1], max_active=3)
    assert placed.left_out == {3: "more than the 3 adapters that a call may use"}


def test_merging_by_score_weighs_by_score(model, keys):
    placed = place(model, keys[:2], [0.75, 0.25], max_active=2, merge="score")
    assert placed.selection.weights == pytest.approx((0.75, 0.25))


def test_a_merge_with_a_shared_part_leaves_room_for_it(lm, store):
    start = AdapterKey(lm.fingerprint, "a" * 64, text_hash("warm-up"))
    model = ParametricModel(lm, store, recipe=get_recipe("prag", start=start.digest), max_adapters=3)
    keys = [model.key(f"text {i}") for i in range(3)]
    for i, key in enumerate([*keys, start]):
        store.put(key, Adapter(model.layout, random_values(model.layout, i), 2.0), {})
    placed = place(model, keys, [0.4, 0.3, 0.2], max_active=2, merge="shared_once")
    assert (placed.in_weights, placed.selection.weights) == ((0, 1), (1.0, 1.0, -1.0))
    assert placed.selection.keys == (*keys[:2], start)
    with pytest.raises(ConfigurationError, match="max_active is 3; it must be from 1 to 2"):
        place(model, keys, [0.4, 0.3, 0.2], max_active=3, merge="shared_once")


def test_an_ensemble_has_the_passages_that_act_with_their_strengths_and_scores(model, keys):
    placer = Placer(model, max_active=2, ensemble="product")
    scores, strengths = [0.2, math.nan, math.log(3)], [1.0, 1.0, 0.5]
    placed = placer.place(keys, question="", strengths=strengths, scores=scores, dates=[None] * 3)
    made = placed.ensemble
    assert placed.in_weights == (0, 2)
    assert [(one.keys, one.weights) for one in made.members] == [((keys[0],), (1.0,)), ((keys[2],), (0.5,))]
    assert made.weights == pytest.approx((math.exp(0.2) / (math.exp(0.2) + 3), 3 / (math.exp(0.2) + 3)))
    assert placer.place([None], question="", strengths=[1.0], scores=[1.0], dates=[None]).ensemble is None
    assert place(model, keys, scores, max_active=2).ensemble is None


def test_without_any_adapter_nothing_is_selected(model):
    placed = place(model, [None, None], [0.5, 0.5])
    assert (placed.selection, placed.in_weights, list(placed.in_prompt)) == (None, (), [0, 1])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_active": 0}, "max_active is 0; it must be from 1 to 3"),
        ({"max_active": 1, "conflicts": "mean"}, "merges several documents' adapters, but max_active is 1"),
        ({"others": "prompt"}, "others is 'prompt'; known: omit, context"),
        ({"conflicts": "newest"}, "conflicts is 'newest'"),
        ({"merge": "average"}, "merge is 'average'; known: mean, sum"),
        ({"merge": "shared_once"}, "the recipe 'prag' has no start"),
        ({"ensemble": "sum"}, "ensemble is 'sum'; known: mixture, product"),
    ],
)
def test_impossible_options_are_refused(model, options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        Placer(model, **options)
