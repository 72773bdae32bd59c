"""Functions that are called with the events of each node."""

import pytest

from langgraph_dynrag.events.observers import add_observer, notify, remove_observer


@pytest.fixture
def seen():
    found = []
    observer = lambda events, config: found.append((events, config))  # noqa: E731
    add_observer(observer)
    yield found
    remove_observer(observer)
    notify([], {})
    assert ([], {}) not in found


def test_an_observer_gets_the_events_of_a_node_and_its_config_until_it_is_removed(seen):
    notify([{"type": "calls"}], {"tags": ["a"]})
    assert seen == [([{"type": "calls"}], {"tags": ["a"]})]


def test_removing_an_unknown_observer_is_ignored():
    remove_observer(print)
