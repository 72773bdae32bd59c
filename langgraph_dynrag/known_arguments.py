"""A base class for LangChain's pydantic classes that rejects unknown constructor arguments.

LangChain's own base classes ignore unknown arguments, so that a misspelt option silently has no effect.
"""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel

from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError


class KnownArguments(BaseModel):
    """Rejects unknown constructor arguments and suggests the closest known one.

    A subclass that sets `extra` in its `model_config` keeps its own behaviour.
    """

    def __init__(self, **data: Any) -> None:
        if type(self).model_config.get("extra") in (None, "ignore"):
            names = argument_names(type(self))
            refuse_unknown(data, names, type(self).__name__)
            fields = [names[name] for name in data]
            for name in data:
                if fields.count(names[name]) > 1:
                    both = sorted(n for n in data if names[n] == names[name])
                    raise ConfigurationError(f"{' and '.join(both)} name the same argument; give one of them")
        super().__init__(**data)


def argument_names(model: type[BaseModel]) -> dict[str, str]:
    """Map each name that a pydantic class accepts as an argument, aliases included, to its field."""
    names = {name: name for name in model.model_fields}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        names |= {choice: name for choice in choices if isinstance(choice, str)}
    return names
