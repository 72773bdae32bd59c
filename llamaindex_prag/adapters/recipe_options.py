"""Recipes on the command line: changes as NAME=VALUE, a recipe as the options that name it, and what a store holds.

--change rank=2 --change acts_from=answer --change 'layers=[20, 21]'     values are JSON, or plain text
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol, get_args, get_type_hints

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import DISTILL, PRAG, RECIPES, WARM_UP, Recipe
from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_options


class RecordedStore(Protocol):
    """The part of a store that says which recipes its adapters were trained with."""

    def keys(self) -> list[AdapterKey]:
        """Return the keys of all adapters in the store."""

    def record(self, key: AdapterKey) -> dict[str, Any] | None:
        """Return how an adapter was made, or None."""


def changes_of(given: Sequence[str]) -> dict[str, Any]:
    """Parse changed values of a recipe, by name, for `Recipe.changed`.

    A value is JSON; one that is not is a text, so `acts_from=answer` needs no quotes. A whole number given for a
    fractional one is converted, because a recipe's key tells 4 from 4.0.

    Raises:
        ConfigurationError: If one does not have the form NAME=VALUE, a name is unknown or given twice, or a value is of
            another type.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigurationError(f"--change {text!r} is not of the form NAME=VALUE, such as rank=2")
        if name in found:
            raise ConfigurationError(f"--change names {name} twice: {found[name]!r} and {value!r}; give one value")
        found[name] = _value(value)
    refuse_unknown(found, [field.name for field in fields(Recipe)], "a recipe")
    check_options(Recipe, found)
    return {name: _converted(name, value) for name, value in found.items()}


def options_of(recipe: Recipe) -> str:
    """Return the options of the command line that name a recipe: `--recipe distill --change rank=2`."""
    base = RECIPES.get(recipe.name, DISTILL if recipe.objective == "distill" else PRAG)
    values = [(field.name, getattr(recipe, field.name)) for field in fields(Recipe)]
    changes = [f"{name}={_text(value)}" for name, value in values if value != getattr(base, name)]
    return " ".join([f"--recipe {base.name}", *(f"--change {shlex.quote(change)}" for change in changes)])


def refuse_other_recipes(store: RecordedStore, recipe: Recipe, advice: str) -> None:
    """Refuse a store that holds adapters of other recipes, but none of this one.

    Args:
        store: The store; an empty one is accepted.
        recipe: The recipe, settled for the model.
        advice: What else the user can do, as the end of the message.

    Raises:
        ConfigurationError: If the store has no adapter of this recipe; the message names the recipes that it has.
    """
    one_of_each = {key.recipe: key for key in store.keys()}  # noqa: SIM118 - not a mapping
    if recipe.key in one_of_each:
        return
    held = [made_by for key in one_of_each.values() if (made_by := _recipe_of(store.record(key))) is not None]
    if not held:
        return
    # The same recipe has another key if the prompts or rules have changed since.
    told = [options_of(other) + (" (of another version of dynprag)" if other == recipe else "") for other in held]
    raise ConfigurationError(
        f"the store has no adapter of the recipe {options_of(recipe)}; its adapters were trained with "
        f"{'; '.join(sorted(told))}. {advice}"
    )


def _recipe_of(record: dict[str, Any] | None) -> Recipe | None:
    """Return the recipe in an adapter's record; None for a warm-up, which belongs to no document."""
    try:
        found = Recipe.from_dict((record or {})["recipe"])
    except (KeyError, ConfigurationError):
        return None
    return None if found.name == WARM_UP.name else found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _converted(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    hint = get_type_hints(Recipe)[name]
    return float(value) if isinstance(value, int) and float in (hint, *get_args(hint)) else value


def _text(value: Any) -> str:
    plain = isinstance(value, str) and _value(value) == value and value.strip() == value != ""
    return value if plain else json.dumps(value)
