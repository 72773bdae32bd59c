"""Removes lone surrogates from what LangChain and LangGraph pass in: messages, documents, a graph's input.

No checkpointer can save such text and no model can read it, so it is repaired on entry. Nothing is mutated: objects
that need a change are copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langgraph.types import Command

from rag_backbone.text.unicode import clean_data

_T = TypeVar("_T")


def clean_models(value: _T, source: str) -> _T:
    """Clean every string in a message, a document, or plain data that contains any of them.

    Args:
        value: For example, a graph's input or a list of messages. Other objects are returned unchanged.
        source: Where the value comes from, for the log.
    """
    found: Any = value
    if isinstance(value, BaseMessage | Document):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        cleaned = {name: clean_data(field, source) for name, field in fields.items()}
        changed = {name: field for name, field in cleaned.items() if field != fields[name]}
        found = value.model_copy(update=changed) if changed else value
    elif isinstance(value, Mapping):
        found = {clean_data(k, source): clean_models(v, source) for k, v in value.items()}
    elif isinstance(value, list):
        found = [clean_models(item, source) for item in value]
    elif isinstance(value, tuple) and type(value) is tuple:
        found = tuple(clean_models(item, source) for item in value)
    elif isinstance(value, Command):
        update, resume = clean_models(value.update, source), clean_models(value.resume, source)
        found = replace(value, update=update, resume=resume)
    else:
        found = clean_data(value, source)
    return found


def clean_all(values: Sequence[_T], source: str) -> list[_T]:
    """Return the values, each cleaned with `clean_models`."""
    return [clean_models(value, source) for value in values]
