"""Convert metadata for the vector store: Chroma accepts strings, numbers and booleans, but neither lists nor objects.

Values that Chroma does not accept are stored as JSON under a reserved key and restored when a document is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any

_NESTED = "dynprag_json"
_LARGEST = 2**63


def stored(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with unsupported values as JSON; dates and values that JSON does not support become strings."""
    flat = {key: value for key, value in metadata.items() if _is_key(key) and _is_flat(value)}
    nested = {key: value for key, value in metadata.items() if key not in flat}
    # Always present, because Chroma does not accept a document without metadata.
    return {**flat, _NESTED: json.dumps(nested, ensure_ascii=False, default=_as_text)}


def restored(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata as it was before `stored` converted it."""
    found = dict(metadata or {})
    if isinstance(nested := found.pop(_NESTED, None), str):
        found.update(json.loads(nested))
    return found


def _is_key(key: str) -> bool:
    return bool(key) and not key.startswith(("chroma:", "#", "$")) and key != _NESTED


def _is_flat(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return -_LARGEST <= value < _LARGEST
    return isinstance(value, str | bool)


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | time) else str(value)
