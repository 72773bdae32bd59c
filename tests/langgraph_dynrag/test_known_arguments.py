"""Unknown constructor arguments of pydantic classes are refused."""

import pytest
from pydantic import AliasChoices, ConfigDict, Field

from langgraph_dynrag.known_arguments import KnownArguments, argument_names
from rag_backbone.errors import ConfigurationError


class Own(KnownArguments):
    lookahead: int = Field(3, validation_alias=AliasChoices("lookahead", "horizon"))
    model: str = Field("", alias="model_name")

    model_config = ConfigDict(populate_by_name=True)


class Open(KnownArguments):
    lookahead: int = 3

    model_config = ConfigDict(extra="allow")


def test_every_name_and_alias_of_a_field_is_known():
    assert argument_names(Own) == {
        "lookahead": "lookahead",
        "horizon": "lookahead",
        "model": "model",
        "model_name": "model",
    }


@pytest.mark.parametrize("given", [{"lookahead": 5}, {"horizon": 5}])
def test_a_field_may_be_given_by_any_of_its_names(given):
    assert Own(**given).lookahead == 5


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigurationError, match="Own has no argument 'looakhead' .did you mean 'lookahead'"):
        Own(looakhead=5)
    with pytest.raises(ConfigurationError, match="no argument 'xyz'"):
        Own(xyz=5)


def test_two_names_of_one_field_are_refused():
    with pytest.raises(ConfigurationError, match="horizon and lookahead name the same argument; give one of them"):
        Own(lookahead=3, horizon=4)


def test_a_class_that_asks_for_other_arguments_gets_them():
    assert Open(anything=5).anything == 5
