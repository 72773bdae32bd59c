"""A dataclass's fields are checked against their annotations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pytest

from rag_backbone.checks import known_arguments
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, Probability, check_fields, check_options


@runtime_checkable
class Named(Protocol):
    @property
    def name(self) -> str: ...

    def greet(self) -> str: ...


class Person:
    name = "Ada"

    def greet(self):
        return "Hello."


class Nameless:
    def greet(self):
        return "Hello."


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Bounds(least=1)] = 1

    def __post_init__(self):
        check_fields(self)


@known_arguments
@dataclass(frozen=True, slots=True)
class Options:
    count: Annotated[int, Bounds(least=1, most=9)] = 3
    share: float = 0.5
    depth: Annotated[float, Bounds(least=0, below=0.5)] = 0.0
    chance: Probability = 1.0
    pause: Annotated[float | None, Bounds(above=0, infinite=True)] = None
    name: str = "x"
    flag: bool = False
    mode: Literal["a", "b"] = "a"
    texts: tuple[str, ...] = ()
    pair: tuple[str, int] = ("a", 1)
    values: Sequence[float] = ()
    inner: Inner = field(default_factory=Inner)
    person: Named | None = None
    make: Callable[[str], str] = str.lower
    anything: Any = None

    def __post_init__(self):
        check_fields(self, "option ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "3"}, r"option count is '3' \(str\); a whole number is needed"),
        ({"count": True}, r"count is True \(bool\); a whole number"),
        ({"count": 2.0}, r"count is 2.0 \(float\); a whole number"),
        ({"count": None}, r"count is None \(NoneType\)"),
        ({"count": 0}, "count is 0; at least 1 is needed"),
        ({"count": 10}, "count is 10; at most 9 is needed"),
        ({"count": np.float64(2)}, "a whole number"),
        ({"share": "half"}, r"share is 'half' \(str\); a number"),
        ({"share": False}, r"share is False \(bool\)"),
        ({"share": math.nan}, "share is nan; a finite number"),
        ({"share": math.inf}, "share is inf; a finite number"),
        ({"depth": 1}, "depth is 1; less than 0.5 is needed"),
        ({"depth": 0.5}, "depth is 0.5; less than 0.5 is needed"),
        ({"depth": -1}, "depth is -1; at least 0 is needed"),
        ({"chance": 2}, "chance is 2; a probability between 0 and 1 is needed"),
        ({"pause": math.nan}, "pause is nan; a finite number"),
        ({"pause": 0}, "pause is 0; more than 0 is needed"),
        ({"pause": "1"}, "a number or None is needed"),
        ({"name": b"x"}, r"name is b'x' \(bytes\); a text"),
        ({"flag": "no"}, "True or False is needed"),
        ({"flag": 1}, "True or False is needed"),
        ({"mode": "c"}, "mode is 'c'; known: 'a', 'b'"),
        ({"mode": ["a"]}, "one of 'a', 'b' is needed"),
        ({"texts": "text"}, r"a tuple \(a text, ...\) is needed: \('text',\)"),
        ({"texts": [1]}, "a tuple"),
        ({"pair": ("a",)}, "pair is"),
        ({"values": "12"}, "values is '12'"),
        ({"inner": {"size": 2}}, r"an Inner is needed: Inner\(size=2\)"),
        ({"inner": Inner}, r"Pass an instance: Inner\(...\)"),
        ({"person": Person}, r"Pass an instance: Person\(...\)"),
        ({"person": Nameless()}, "a Named or None is needed; it lacks name"),
        ({"make": "lower"}, "a function is needed"),
        ({"make": str}, "a function is needed"),
    ],
)
def test_the_error_for_an_invalid_value_says_what_is_needed(given, message):
    with pytest.raises(ConfigurationError, match=message):
        Options(**given)
    if "option" not in message:
        with pytest.raises(ConfigurationError):
            check_options(Options, given)


@pytest.mark.parametrize(
    "given",
    [
        {"count": np.int64(2)},
        {"share": 1},
        {"share": np.float32(0.5)},
        {"pause": math.inf},
        {"pause": None},
        {"mode": "b"},
        {"values": [0.5, 1]},
        {"person": Person()},
        {"make": lambda text: text},
        {"anything": object},
    ],
    ids=lambda given: next(iter(given)),
)
def test_valid_values_are_kept_unchanged(given):
    ((name, value),) = given.items()
    assert getattr(Options(**given), name) is value


def test_a_list_becomes_a_tuple():
    assert Options(texts=["a", "b"]).texts == ("a", "b")
    check_options(Options, {"texts": ["a"]})


def test_the_error_for_an_unknown_argument_suggests_the_nearest_one():
    with pytest.raises(ConfigurationError, match=r"Options has no argument 'cuont' \(did you mean 'count'\?\)"):
        Options(cuont=3)
    assert replace(Options(), count=4).count == 4

    @known_arguments
    def greet(name, *, loudly=False):
        return name, loudly

    assert greet("Ada", loudly=True) == ("Ada", True)
    with pytest.raises(ConfigurationError, match="greet has no argument 'loud'.*did you mean 'loudly'"):
        greet("Ada", loud=True)
