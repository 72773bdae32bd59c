"""Argument checks with uniform error messages.

For an unknown name, the message suggests the nearest known one; for a value of the wrong type, it says what was given
and what is needed. Knows nothing of models or frameworks.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

from rag_backbone.errors import ConfigurationError

_SHOWN = 80
_T = TypeVar("_T")


def refuse_unknown(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Refuse unknown names.

    Args:
        given: The names that were used.
        known: The names that exist.
        owner: The function or class that the arguments belong to, for the message: `"LocalChatModel"`.

    Raises:
        ConfigurationError: Naming each unknown name, the nearest known one, and all known ones.
    """
    names = sorted(set(known))
    unknown = [name for name in dict.fromkeys(given) if name not in names]
    if not unknown:
        return
    said = [f"{name!r}{suggestion(name, names)}" for name in unknown]
    raise ConfigurationError(f"{owner} has no argument {', '.join(said)}. Known: {', '.join(names) or '(none)'}.")


def known_arguments(target: _T) -> _T:
    """Decorate a function or class so that it refuses unknown keyword arguments and suggests the nearest known one."""
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    name = getattr(target, "__name__", repr(target))
    names = [
        n for n, p in inspect.signature(function).parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD
    ]

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        refuse_unknown(kwargs, names, name)
        return function(*args, **kwargs)

    if isinstance(target, type):
        target.__init__ = checked  # type: ignore[misc]
        return target
    return cast("_T", checked)


def check_type(name: str, value: object, types: type | tuple[type, ...], needed: str) -> None:
    """Refuse a value of the wrong type. `True` does not count as a number.

    Args:
        name: The argument.
        value: The value that was passed.
        types: The accepted types.
        needed: What is needed, in words and with an example: `"a whole number, such as k=3"`.

    Raises:
        ConfigurationError: Naming the argument, the value, its type, and what is needed.
    """
    allowed = types if isinstance(types, tuple) else (types,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ConfigurationError(f"{name} is {shown(value)}; {needed} is needed")


def shown(value: Any) -> str:
    """Return a value and its type for a message, shortened."""
    text = repr(value)
    return f"{text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'} ({type(value).__name__})"


def clause(error: object) -> str:
    """Return an error's text for use within a sentence: on one line and without a final full stop."""
    return " ".join(str(error).split()).rstrip(" .")


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return `" (did you mean ...?)"` with the nearest known name, or `""` if none is close."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
