"""Batches are whole groups of one machine, of about equal cost."""

import pytest

from llamaindex_prag.cluster.batches import Batch, batches_of
from llamaindex_prag.parametrize import groups_of
from llamaindex_prag.passages import Passage


def made(*lengths):
    return [Passage("x" * n, document=str(i)) for i, n in enumerate(lengths)]


def cost(passage):
    return len(passage.text)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_each_batch_is_grouped_by_a_worker_as_by_one_machine(size, workers):
    passages = made(*(7 * n % 50 + 1 for n in range(40)), 5, 5, 5)
    expected = list(groups_of(passages, size))
    found = [group for batch in batches_of(passages, size, workers, cost) for group in groups_of(batch.passages, size)]
    assert sorted(found, key=expected.index) == expected


def test_short_groups_are_joined_up_to_the_cost_of_the_largest_and_the_most_expensive_come_first():
    batches = batches_of(made(*[1] * 20, 10, 10, 10), 1, 1, cost)
    costs = [sum(map(cost, batch.passages)) for batch in batches]
    assert costs == [10, 10, 10, 10, 10]


def test_there_are_several_batches_for_each_worker_if_there_are_as_many_groups():
    assert len(batches_of(made(*[10] * 64), 2, 4, cost)) >= 16
    assert len(batches_of(made(*[10] * 6), 2, 4, cost)) == 3


def test_without_passages_there_are_no_batches():
    assert batches_of([], 8, 2, cost) == []


def test_a_batch_is_split_into_its_passages_whose_deaths_count_from_zero():
    batch = Batch(tuple(made(1, 2)), deaths=2)
    assert [(one.passages, one.deaths) for one in batch.alone()] == [((p,), 0) for p in batch.passages]
