"""Converts metadata of any kind to plain data, which JSON, checkpoints and databases can store.

Loaders put dates, enumerations, NumPy numbers, nested lists and objects into a document's metadata. Values with a plain
form are converted; all others are reported. Knows nothing of frameworks or databases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

from rag_backbone.text.unicode import clean_data

_DEPTH = 20
# The integers that msgpack, the format of LangGraph's checkpoints, can store.
_INTEGERS = range(-(2**63), 2**64)


class NotPlainError(TypeError):
    """A value cannot be represented as plain data."""


def plain_metadata(metadata: Mapping[Any, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """Return metadata as plain data (JSON-compatible), and what could not be kept.

    Args:
        metadata: A document's metadata. Fields that are None are left out.
        source: The origin of the metadata, for the log.

    Returns:
        The fields, with dates as ISO 8601 texts and lone surrogates repaired; and a line for each field that was left
            out, such as `"metadata 'image' (bytes) cannot be stored"`.
    """
    kept: dict[str, Any] = {}
    lost: list[str] = []
    for key, value in metadata.items():
        if value is None:
            continue
        try:
            kept[str(key)] = as_plain_data(value)
        except NotPlainError as error:
            lost.append(f"metadata {str(key)!r} ({error}) cannot be stored")
    return clean_data(kept, source), clean_data(lost, source)


def as_plain_data(value: Any, depth: int = 0) -> Any:
    """Return a value as plain data: None, booleans, numbers, texts, and lists and mappings of these.

    Dates and times become ISO 8601 texts; enumeration members their values; paths, UUIDs, decimals and integers beyond
    64 bits texts; sets and tuples lists; dataclasses and Pydantic models mappings.

    Raises:
        NotPlainError: If the value has no such form; the message is its type.
    """
    if depth > _DEPTH:
        raise NotPlainError("nested too deeply")
    if isinstance(value, Enum):
        return as_plain_data(value.value, depth + 1)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dt.date | dt.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, dt.timedelta | Decimal | uuid.UUID | PurePath):
        return str(value)
    if isinstance(value, Integral | Real):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(k): as_plain_data(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain_data(v, depth + 1) for v in value]
    if isinstance(value, set | frozenset):
        return [as_plain_data(v, depth + 1) for v in sorted(value, key=repr)]
    return as_plain_data(_converted(value), depth + 1)


def _number(value: Integral | Real) -> int | float | str:
    if isinstance(value, Integral):
        return int(value) if int(value) in _INTEGERS else str(int(value))
    return float(value) if math.isfinite(value) else str(float(value))


def _converted(value: Any) -> Any:
    """Return an object in the plain form that it provides."""
    if not isinstance(value, type):
        if dataclasses.is_dataclass(value):
            return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        # Pydantic models; other libraries' dates; NumPy and torch scalars, but not arrays.
        for name in ("model_dump", "isoformat", "item"):
            method = getattr(value, name, None)
            if callable(method):
                with contextlib.suppress(Exception):
                    return method()
    raise NotPlainError(type(value).__name__)
