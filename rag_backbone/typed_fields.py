"""Checks a dataclass's fields against their annotations, so that a wrong type is refused at construction.

Supports the annotations that options use: numbers with bounds, texts, choices, sequences, functions, classes and
protocols. Values with other annotations are accepted unchecked.
"""

from __future__ import annotations

import functools
import math
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from typing_extensions import get_protocol_members, is_protocol

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a number, for `Annotated[int, Bounds(least=1)]`. A float must be finite unless `infinite` is set."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    infinite: bool = False
    what: str | None = None
    """Description of a valid value, for the message: `"a probability between 0 and 1"`."""

    def problem(self, value: Any) -> str | None:
        """Return what is needed instead of the number, or None if it is within the limits."""
        limits = (
            (self.least, "at least", operator.ge),
            (self.above, "more than", operator.gt),
            (self.most, "at most", operator.le),
            (self.below, "less than", operator.lt),
        )
        for limit, word, holds in limits:
            if limit is not None and not holds(value, limit):
                return self.what or f"{word} {limit:g}"
        return None


Probability: TypeAlias = Annotated[float, Bounds(least=0, most=1, what="a probability between 0 and 1")]


def check_fields(instance: Any, prefix: str = "") -> None:
    """Refuse values that do not fit the annotations of a dataclass; a list given for a tuple is converted.

    Args:
        instance: The dataclass instance; call this first in `__post_init__`.
        prefix: Precedes the fields' names in messages: `"budget "`.

    Raises:
        ConfigurationError: Naming the field, the value, its type, and what is needed.
    """
    kind: Any = type(instance)
    for name, hint in _hints(kind).items():
        value = getattr(instance, name)
        if isinstance(value, list) and _takes_tuple(hint):
            value = tuple(value)
            object.__setattr__(instance, name, value)
        check_value(f"{prefix}{name}", value, hint)


def check_options(kind: type, given: Mapping[str, Any]) -> None:
    """Refuse values that do not fit the fields of a dataclass that is to be created with them.

    Raises:
        ConfigurationError: Naming the field, the value, its type, and what is needed.
    """
    made: Any = kind
    hints = _hints(made)
    for name, value in given.items():
        check_value(name, tuple(value) if isinstance(value, list) and _takes_tuple(hints[name]) else value, hints[name])


def check_value(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that does not fit an annotation.

    Raises:
        ConfigurationError: Naming the argument, the value, its type, and what is needed.
    """
    if (needed := _problem(value, hint)) is not None:
        raise ConfigurationError(f"{name} is {needed}")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


def _problem(value: Any, hint: Any) -> str | None:
    """Return the value and what is needed instead, or None if it fits."""
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    bounds = next((extra for extra in extras if isinstance(extra, Bounds)), Bounds())
    options = _options(hint)
    if any(_fits(value, option) for option in options):
        return _number_problem(value, bounds)
    if [get_origin(option) for option in options] == [Literal] and isinstance(value, str):
        return f"{value!r}; known: {', '.join(map(repr, get_args(options[0])))}"
    needed = " or ".join(dict.fromkeys(map(_described, options)))
    return f"{shown(value)}; {needed} is needed{_advice(value, hint)}"


def _number_problem(value: Any, bounds: Bounds) -> str | None:
    if not _is_number(value):
        return None
    if math.isnan(value) or (math.isinf(value) and not bounds.infinite):
        return f"{value}; a finite number is needed"
    needed = bounds.problem(value)
    return None if needed is None else f"{value}; {needed} is needed"


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Annotated, Union, types.UnionType):
        return _problem(value, hint) is None
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin is tuple:
        return isinstance(value, tuple) and _each_fits(value, args)
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and _each_fits(value, (*args, ...))
    return _is_instance(value, origin or hint)


def _each_fits(values: Sequence[Any], hints: tuple[Any, ...]) -> bool:
    each = hints[:1] * len(values) if hints[1:] == (Ellipsis,) else hints
    return len(each) == len(values) and all(map(_fits, values, each))


def _is_instance(value: Any, kind: Any) -> bool:
    if kind in (bool, int, float):
        numbers = {bool: bool, int: Integral, float: Real}[kind]
        return isinstance(value, numbers) and (kind is bool or not isinstance(value, bool))
    if kind is Callable:
        return callable(value) and not isinstance(value, type)
    if kind is None:
        return value is None
    if not isinstance(kind, type) or kind is object:
        return True  # Any, or an unsupported annotation
    try:
        # A class has its instances' methods, so it would pass as an instance of a protocol.
        return isinstance(value, kind) and not isinstance(value, type)
    except TypeError:  # a protocol that cannot be checked
        return True


def _described(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    known = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", type(None): "None"}
    if origin is Annotated:
        return _described(args[0])
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is tuple or origin is Sequence:
        return f"a tuple ({_described(args[0])}, ...)" if args else "a tuple"
    kind = origin or hint
    if kind is Callable:
        return "a function"
    if kind in known:
        return known[kind]
    name = getattr(kind, "__name__", str(kind))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _advice(value: Any, hint: Any) -> str:
    """Return the line to write instead, if it can be determined."""
    if isinstance(value, type):
        return f". Pass an instance: {value.__name__}(...)"
    options = _options(hint)
    made = next((kind for kind in options if isinstance(kind, type) and is_dataclass(kind)), None)
    if made is not None and isinstance(value, Mapping):
        return f": {made.__name__}({', '.join(f'{name}={given!r}' for name, given in value.items())})"
    if made is not None and all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(made)):
        return f", such as {made.__name__}()"
    protocol = next((kind for kind in options if isinstance(kind, type) and is_protocol(kind)), None)
    if protocol is not None:
        members = sorted(get_protocol_members(protocol))
        lacking = [name for name in members if not hasattr(value, name)]
        return f"; it lacks {', '.join(lacking)}" if len(lacking) < len(members) else ""
    if isinstance(value, str) and _takes_tuple(hint):
        return f": ({value!r},)"
    return ""


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _takes_tuple(hint: Any) -> bool:
    return any(get_origin(option) is tuple for option in _options(hint))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
