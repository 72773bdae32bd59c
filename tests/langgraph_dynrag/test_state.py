"""The state of a run, its version, and the overrides of a run."""

import pytest
from pydantic import TypeAdapter

from langgraph_dynrag import Budgets, DynamicRAGContext
from langgraph_dynrag.state import VERSION, StateVersionError, check_version, spent
from langgraph_dynrag.triggers import Once
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import WatchedRetriever


@pytest.mark.parametrize("state", [{}, {"version": VERSION}, {"question": "Who?"}])
def test_a_state_of_this_version_or_without_one_is_accepted(state):
    check_version(state)


@pytest.mark.parametrize("version", [VERSION + 1, 0, None, "1"])
def test_a_state_of_another_version_is_refused_with_what_to_do(version):
    with pytest.raises(
        StateVersionError, match=f"state version {version}; .*Ask the question again on a new thread_id"
    ):
        check_version({"version": version})


def test_the_working_time_is_the_sum_over_the_nodes():
    assert spent({"seconds": {"generate": 1.5, "retrieve": 0.25}}) == 1.75
    assert spent({}) == spent({"seconds": {}}) == 0


def test_budgets_may_be_given_as_plain_data_and_keep_their_defaults():
    assert DynamicRAGContext(budgets={"tokens": 64}).budgets == Budgets(tokens=64)
    assert DynamicRAGContext(budgets=Budgets(tokens=64)) == DynamicRAGContext(budgets={"tokens": 64})
    with pytest.raises(ConfigurationError, match="budget tokens is 0"):
        DynamicRAGContext(budgets={"tokens": 0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "k is 0; at least 1"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"trigger": Once}, r"Pass an instance: Once\(...\)"),
        ({"retriever": object()}, "retriever is "),
        ({"kk": 5}, "DynamicRAGContext has no argument 'kk'"),
    ],
)
def test_overrides_of_the_wrong_type_are_refused(given, message):
    with pytest.raises(ConfigurationError, match=message):
        DynamicRAGContext(**given)


def test_overrides_that_are_not_given_are_none():
    context = DynamicRAGContext(retriever=WatchedRetriever(), k=2)
    assert (context.trigger, context.query, context.budgets, context.seed) == (None, None, None, None)


def test_clients_of_a_server_see_which_overrides_they_can_send():
    properties = TypeAdapter(DynamicRAGContext).json_schema()["properties"]
    budgets = properties["budgets"]["anyOf"][0]["properties"]
    assert budgets["tokens"] == {"type": "integer"}
    assert budgets["seconds"] == {"type": "number"}
    assert properties["trigger"]["type"] == "null"
