"""Rejects unknown arguments of the LlamaIndex classes.

LlamaIndex's base classes silently ignore unknown names, so a misspelt option would have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AliasChoices, BaseModel

from rag_backbone.checks import refuse_unknown
from rag_backbone.errors import ConfigurationError

CALL_OPTIONS = ("max_tokens", "max_new_tokens", "temperature", "seed", "stop", "top_logprobs")
"""Keyword arguments of a call of `ParametricLLM`."""
_CHOOSING = ("route", "max_active")


def refuse_choosing(given: Iterable[str]) -> None:
    """Refuse to choose among documents in a `ParametricLLM`, which sees a finished prompt.

    Raises:
        ConfigurationError: If an argument would choose; the message says where it belongs.
    """
    if named := [name for name in _CHOOSING if name in given]:
        raise ConfigurationError(
            f"ParametricLLM has no argument {', '.join(named)}: the nodes that act are chosen before a prompt is "
            "written, because the prompt has the text of the nodes if none may act. Give it to the postprocessor: "
            "ParametricNodePostprocessor(llm=llm, route='lexical', max_active=3); or, without nodes, ask "
            "llm.model.answer(question, documents=texts, route='lexical')"
        )


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
