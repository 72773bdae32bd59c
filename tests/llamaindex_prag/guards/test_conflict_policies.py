"""The effect of each policy on documents that contradict each other, and the dates that decide."""

from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.guards.conflict_policies import date_of, resolve
from llamaindex_prag.guards.conflicts import Conflicts

YEARS = [datetime(year, 1, 1, tzinfo=UTC) for year in (2019, 2024, 2021)]


def measured(pairs, k=3):
    matrix = np.zeros((k, k))
    for (i, j), nats in pairs.items():
        matrix[i, j] = matrix[j, i] = nats
    keys = tuple(AdapterKey("m" * 64, "r" * 64, text_hash(str(i))) for i in range(k))
    return Conflicts("When?", keys, tuple(f"answer {i}" for i in range(k)), matrix, bound=1.0)


def test_each_policy_on_three_documents_of_which_two_contradict_each_other():
    conflicts = measured({(0, 1): 5.0, (1, 2): 0.5})
    assert (conflicts.pairs, conflicts.documents) == ([(0, 1)], [0, 1])
    assert resolve(conflicts, "mean").in_weights == (0, 1, 2)
    scored = resolve(conflicts, "score-weighted")
    assert (scored.in_weights, scored.by_score) == ((0, 1, 2), True)
    latest = resolve(conflicts, "latest", dates=YEARS)
    assert latest.in_weights == (1, 2)
    assert "document 2 is later" in latest.left_out[0]
    shown = resolve(conflicts, "context")
    assert shown.in_weights == (2,)
    assert shown.in_prompt[1] == "it says 'answer 1', document 1 says 'answer 0'"


def test_without_a_contradiction_no_policy_has_an_effect():
    quiet = resolve(measured({(0, 1): 0.9}), "mean")
    assert all(resolve(measured({(0, 1): 0.9}), p) == quiet for p in ("score-weighted", "latest", "context"))


def test_latest_keeps_both_documents_without_dates():
    conflicts = measured({(0, 1): 5.0})
    assert resolve(conflicts, "latest").in_weights == (0, 1, 2)
    assert resolve(conflicts, "latest", dates=[None, YEARS[0], None]).in_weights == (1, 2)


@given(st.lists(st.sampled_from([0.0, 2.0]), min_size=10, max_size=10), st.permutations(range(5)))
def test_latest_uses_at_most_one_of_each_contradicting_pair_and_always_the_latest_document(nats, order):
    places = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    conflicts = measured(dict(zip(places, nats, strict=True)), k=5)
    dates = [datetime(2000 + n, 1, 1, tzinfo=UTC) for n in order]
    used = set(resolve(conflicts, "latest", dates=dates).in_weights)
    assert order.index(4) in used
    assert not any({i, j} <= used for i, j in conflicts.pairs)
    assert all(i in used or any(j in used for pair in conflicts.pairs if i in pair for j in pair) for i in range(5))


@pytest.mark.parametrize(
    ("metadata", "year"),
    [
        ({"last_modified_date": "2024-03-01"}, 2024),
        ({"date": "2023-03-01T10:00:00+02:00"}, 2023),
        ({"updated": "yesterday", "date": "2022-01-05"}, 2022),
        ({"published": datetime(2021, 5, 5)}, 2021),  # noqa: DTZ001 - naive, as in real metadata
        ({"updated_at": 1_600_000_000}, 2020),
        ({"updated_at": 1e300}, None),
        ({"mtime": 1_600_000_000_000}, 2020),
        ({"moddate": "D:20190303100000+01'00'"}, 2019),
        ({"modDate": "D:20190303100000Z"}, 2019),
        ({"Last-Modified": "Tue, 06 Mar 2018 10:00:00 GMT"}, 2018),
        ({"Published": date(2017, 1, 2)}, 2017),
        ({"lastModified": "2016-02-03T04:05:06Z"}, 2016),
        ({"date": "Tuesday"}, None),
        ({"date": None}, None),
        ({"title": "2024"}, None),
    ],
)
def test_a_date_is_found_where_frameworks_put_it(metadata, year):
    found = date_of(metadata)
    assert (None if found is None else found.year) == year
