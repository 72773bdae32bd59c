"""Rejects unknown arguments of the LlamaIndex classes.

LlamaIndex's base classes silently ignore unknown names, so a misspelt option would have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AliasChoices, BaseModel

from rag_backbone.checks import refuse_unknown

CALL_OPTIONS = ("max_tokens", "max_new_tokens", "temperature", "seed", "stop", "top_logprobs")
"""Keyword arguments of a call of `ParametricLLM`."""


def refuse_unknown_arguments(kind: type[BaseModel], given: Iterable[str], own: Iterable[str] = ()) -> None:
    """Check that a class has all the constructor arguments given.

    Args:
        kind: The class. Its fields are known, including those of LlamaIndex's base classes (`callback_manager`, ...).
        given: The names that were used.
        own: Names that its `__init__` takes in addition to the fields.

    Raises:
        ConfigurationError: If an argument is unknown; the message names the nearest known one.
    """
    known = {*kind.model_fields, *own}
    for field in kind.model_fields.values():
        alias = field.validation_alias
        known |= {a for a in (alias.choices if isinstance(alias, AliasChoices) else [alias]) if isinstance(a, str)}
    # `class_name` is part of the result of `to_dict`.
    refuse_unknown([name for name in given if name != "class_name"], known, kind.__name__)
