"""Checks of arguments, said in the same words everywhere.

An unknown name is answered with the nearest known one, a value of another type with what was given and what is
needed. Knows nothing of models or frameworks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from rag_backbone.errors import ConfigurationError

_SHOWN = 80


def refuse_unknown(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Refuse names that are not known.

    Args:
        given: The names that were used.
        known: The names that exist.
        owner: Whose arguments these are, for the message: `"LocalChatModel"`.

    Raises:
        ConfigurationError: Naming each unknown one, the nearest known one, and all known ones.
    """
    names = sorted(set(known))
    unknown = [name for name in dict.fromkeys(given) if name not in names]
    if not unknown:
        return
    said = [f"{name!r}{_suggestion(name, names)}" for name in unknown]
    raise ConfigurationError(f"{owner} has no argument {', '.join(said)}. Known: {', '.join(names)}.")


def check_type(name: str, value: object, types: type | tuple[type, ...], needed: str) -> None:
    """Refuse a value of another type. `True` is no number.

    Args:
        name: The argument.
        value: What was given.
        types: What it may be.
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
    """Return an error's text to stand within a sentence: on one line, and without a full stop of its own."""
    return " ".join(str(error).split()).rstrip(" .")


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
