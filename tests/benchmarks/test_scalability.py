"""Corpora of growing size, and the number of queries from which an adapter pays off."""

import argparse
import json
import math
from pathlib import Path

import pytest

from benchmarks.scalability import corpus, crossover
from llamaindex_prag.placement.costs import Costs

COSTS = Costs(read=0.002, activate=0.01, train=0.5, represent=0.001, translate=0.005)


def test_the_crossover_matches_a_worked_example():
    # 100 tokens: 0.2 s to read each time; trained 50 s once and 0.01 s each; translated 0.1 s once and 0.015 s each.
    assert crossover(COSTS, "trained", 100) == pytest.approx(50 / 0.19)
    assert crossover(COSTS, "translated", 100) == pytest.approx(0.1 / 0.185)
    assert crossover(COSTS, "combined", 100) == math.inf
    assert crossover(COSTS, "trained", 4) == math.inf  # 8 ms to read


def test_a_corpus_starts_with_the_passages_that_questions_are_about(tmp_path):
    others = tmp_path / "others.jsonl"
    others.write_text("\n".join(json.dumps({"text": f"Nobody asks about {i}."}) for i in range(99)))
    args = argparse.Namespace(data=Path("examples/data"), others=others, questions=12, k=3, seed=0)
    small, large = corpus(args, 10), corpus(args, 60)
    assert (len(small.passages), len(large.passages)) == (10, 60)
    assert sum("Nobody" in p.text for p in large.passages) == 60 - 44
    assert not any("Nobody" in p.text for p in small.passages)
    assert len(large.facts) == 12
    assert len({f.passage for f in large.facts}) == 12
    assert {f.passage for f in small.facts} <= {p.text for p in small.passages}
    found = large.retriever.invoke(large.facts[0].question)
    assert 1 <= len(found) <= 3
