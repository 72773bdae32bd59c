"""Dots, and joins of deltas in any order."""

from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.store.object.causal import Dots
from tests.llamaindex_prag.store.object.simulated import Writers

dots = st.tuples(st.sampled_from("ab"), st.integers(1, 12))


@given(st.lists(dots), st.lists(dots))
def test_dots_are_a_set(some, others):
    found, other = Dots.of(some), Dots.of(others)
    assert set(found) == set(some)
    assert len(found) == len(set(some))
    assert all((dot in found) == (dot in set(some)) for dot in [(w, n) for w in "abc" for n in range(14)])
    assert (found <= other) == (set(some) <= set(others))
    assert set(Dots(found.to_dict())) == set(some)
    found.update(other)
    assert set(found) == set(some) | set(others)


def test_dots_of_one_writer_are_kept_as_ranges():
    found = Dots.of(("w", n) for n in (5, 1, 2, 7, 3, 6))
    assert found.to_dict() == {"w": [[1, 3], [5, 7]]}
    found.add(("w", 4))
    assert found.to_dict() == {"w": [[1, 7]]}


@given(st.data())
def test_records_join_to_the_same_state_in_any_order_and_twice(data):
    writers = Writers(3)
    for _ in range(data.draw(st.integers(1, 12))):
        writers.act_at_random(data.draw)
    records = writers.records
    first = writers.reader()
    again = data.draw(
        st.permutations(records + data.draw(st.lists(st.sampled_from(records)) if records else st.just([])))
    )
    second = writers.reader(again)
    assert (first.facts, set(first.seen)) == (second.facts, set(second.seen))
    # A state is itself a delta, so a snapshot of some records joins with the others.
    cut = data.draw(st.integers(0, len(records)))
    third = writers.reader([*again[cut:], writers.snapshot(records[:cut]), writers.snapshot(records)])
    assert (first.facts, set(first.seen)) == (third.facts, set(third.seen))
