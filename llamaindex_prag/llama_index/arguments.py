"""Arguments of the LlamaIndex classes: unknown ones are refused.

LlamaIndex's base classes ignore names that they do not know, so a misspelt option has no effect and no message.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AliasChoices, BaseModel

from rag_backbone.checks import refuse_unknown

CALL_OPTIONS = ("max_tokens", "max_new_tokens", "temperature", "seed", "stop", "top_logprobs")
"""What a call of `ParametricLLM` takes beside the prompt."""


def refuse_unknown_arguments(kind: type[BaseModel], given: Iterable[str], own: Iterable[str] = ()) -> None:
    """Refuse constructor arguments that a class does not have.

    Args:
        kind: The class. Its fields are known, those of LlamaIndex's base classes (`callback_manager`, ...) included.
        given: The names that were used.
        own: Names that its `__init__` takes beside the fields.

    Raises:
        ConfigurationError: Naming each unknown argument and the nearest known one.
    """
    known = {*kind.model_fields, *own}
    for field in kind.model_fields.values():
        alias = field.validation_alias
        known |= {a for a in (alias.choices if isinstance(alias, AliasChoices) else [alias]) if isinstance(a, str)}
    # `class_name` is part of what `to_dict` gives.
    refuse_unknown([name for name in given if name != "class_name"], known, kind.__name__)
