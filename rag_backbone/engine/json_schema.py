"""Turns JSON schemas into grammars: closes objects to unlisted keys and fixes the JSON layout.

A schema that says nothing about further keys allows any. Callers that ask for JSON by a schema want its keys and no
others, so objects that list their properties are closed first. Output that is valid under the closed schema is also
valid under the original one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

JSONSchema = Mapping[str, Any]

_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The layout that `json.dumps` writes. If arbitrary whitespace were allowed, a model could emit it forever."""
_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_COMBINE = ("allOf", "anyOf", "oneOf", "$ref")
_OF_OTHER_KEYS = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def compiled_schema(schema: JSONSchema) -> str:
    """Return the schema as JSON text for the grammar (see `grammar`): closed, and with a fixed layout."""
    return json.dumps({**closed(schema), "x-guidance": {**_LAYOUT, **schema.get("x-guidance", {})}})


def closed(schema: JSONSchema) -> dict[str, Any]:
    """Return the schema with `additionalProperties: false` where properties are listed and no other keys are mentioned.

    If several parts of a schema describe one object (`allOf`, or `anyOf` next to `properties`), the schema is left as
    it is, because each part would exclude the others' keys.
    """
    return dict(schema) if _merges(schema) else _closed(schema)


def _closed(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    new = dict(node)
    for key in _OF_SCHEMAS:
        if isinstance(node.get(key), Mapping):
            new[key] = {name: _closed(part) for name, part in node[key].items()}
    for key in _LISTS:
        if isinstance(node.get(key), list):
            new[key] = [_closed(part) for part in node[key]]
    for key in _SINGLE:
        if key in node:
            new[key] = _closed(node[key])
    names = node.get("properties")
    listed = isinstance(names, Mapping) and set(node.get("required") or ()) <= set(names)
    if listed and not any(key in node for key in _OF_OTHER_KEYS):
        new["additionalProperties"] = False
    return new


def _merges(node: Any) -> bool:
    """Return whether several parts of the schema describe the same object anywhere in it."""
    if not isinstance(node, Mapping):
        return False
    combined = [key for key in _COMBINE if key in node]
    if len(combined) + ("properties" in node) > 1 or len(node.get("allOf") or ()) > 1:
        return True
    parts = [part for key in _OF_SCHEMAS if isinstance(node.get(key), Mapping) for part in node[key].values()]
    parts += [part for key in _LISTS if isinstance(node.get(key), list) for part in node[key]]
    return any(_merges(part) for part in [*parts, *(node.get(key) for key in _SINGLE)])
