"""Which passages act through their adapters, and what happens to the rest."""

from llamaindex_prag.placement.placer import best_scored


def test_best_scored_counts_equal_passages_once_and_skips_none():
    assert best_scored(["a", None, "b", "a"], [0.1, 9.0, 0.5, 0.9], 1) == [3, 0]
    assert best_scored(["a", "b"], None, 1) == [0]
    assert best_scored([None], [1.0], 3) == []
    assert best_scored([], [], 1) == []
