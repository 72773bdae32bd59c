"""Pairs of contradicting passages: the swapped value changes, and nothing else does."""

from pathlib import Path

import pytest

from benchmarks.conflicts import outcome
from benchmarks.contradictions import contradictions
from benchmarks.scoring import roc, roc_area
from benchmarks.single_hop import Fact, load_facts

PASSAGE = "Anna Brook built the Tern in 1874. The Tern, 31 metres long, sank in 1874."


def fact(question, answer, passage=PASSAGE):
    return Fact("x", "Tern", passage, question, (answer,))


def test_a_number_is_replaced_everywhere_by_one_of_similar_size():
    (pair,) = contradictions([fact("In which year did the Tern sink?", "1874")], count=1, seed=0)
    assert pair.true == "1874"
    assert 1814 <= int(pair.false) <= 1934
    assert pair.altered == PASSAGE.replace("1874", pair.false)


def test_a_name_is_replaced_by_another_answer_to_the_same_kind_of_question():
    other = fact("Who painted the mill?", "Carla Dent", "Carla Dent painted the mill.")
    wrong_kind = fact("Which town has a mill?", "Port Lusk", "Port Lusk has a mill.")
    pairs = contradictions([fact("Who built the Tern?", "Anna Brook"), other, wrong_kind], count=9, seed=0)
    assert {(p.true, p.false) for p in pairs} == {("Anna Brook", "Carla Dent"), ("Carla Dent", "Anna Brook")}


def test_both_passages_agree_on_a_question_without_the_swapped_value():
    facts = [fact("In which year did the Tern sink?", "1874"), fact("How long is the Tern?", "31 metres")]
    (pair,) = contradictions(facts, count=1, seed=0)
    assert pair.agreed is not None
    assert {pair.fact.question, pair.agreed.question} == {f.question for f in facts}
    facts = [fact("In which year did the Tern sink?", "1874"), fact("Where did she sink in 1874?", "at sea")]
    assert contradictions(facts, count=1, seed=0)[0].agreed is None


def test_a_fact_that_is_not_in_its_passage_gives_no_pair():
    assert contradictions([fact("Who sank her?", "nobody")], count=1, seed=0) == []


@pytest.mark.parametrize("folder", ["examples/data", "examples/data/ombrel"])
def test_pairs_from_the_project_data_are_reproducible_and_consistent(folder):
    facts = load_facts(Path(folder))
    pairs = contradictions(facts, count=12, seed=0)
    assert len(pairs) == 12 == len({p.fact.passage for p in pairs})
    assert pairs == contradictions(facts, count=12, seed=0)
    for pair in pairs:
        assert pair.true in pair.fact.passage
        assert pair.true not in pair.altered.split()
        assert pair.false in pair.altered
        assert pair.altered.count(pair.false) == pair.fact.passage.count(pair.true)


def test_outcome_names_the_values_that_an_answer_contains():
    (pair,) = contradictions([fact("In which year did the Tern sink?", "1874")], count=1, seed=0)
    for answer, said in (
        ("in 1874", "true"),
        (pair.false, "false"),
        (f"1874 or {pair.false}", "both"),
        ("no idea", "neither"),
    ):
        assert outcome(answer, pair) == said


def test_roc_and_its_area_match_a_worked_example():
    scores, labels = [3.0, 2.0, 2.0, 0.0], [True, True, False, False]
    assert roc(scores, labels) == [(0, 0, float("inf")), (0, 0.5, 3), (0.5, 1, 2), (1, 1, 0)]
    area, low, high = roc_area(scores, labels)
    assert area == (1 + 1 + 1 + 0.5) / 4
    assert low <= area <= high == 1
    with pytest.raises(ValueError, match="both labels"):
        roc(scores, [True] * 4)
