"""JSON schemas as grammars that a text can be held to: which keys are left open, and how the JSON is laid out.

A schema that says nothing of further keys allows any. Who asks for JSON of a schema wants its keys and no others, so
objects that list their properties are closed first. What is valid then is valid by the schema as it was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

JSONSchema = Mapping[str, Any]

_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `json.dumps` writes. Where any white space may stand, a model can go on with it for ever."""
_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
_COMBINE = ("allOf", "anyOf", "oneOf", "$ref")
_OF_OTHER_KEYS = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def compiled_schema(schema: JSONSchema) -> str:
    """The schema as a grammar takes it (see `grammar`): closed, and with how its JSON is laid out."""
    return json.dumps({**closed(schema), "x-guidance": {**_LAYOUT, **schema.get("x-guidance", {})}})


def closed(schema: JSONSchema) -> dict[str, Any]:
    """The schema with `additionalProperties: false` wherever properties are listed and nothing is said of other keys.

    If several parts of a schema describe one object (`allOf`, `anyOf` beside `properties`), it is left as it is: each
    part would exclude the others' keys.
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
    """Whether several parts describe the same object somewhere in it."""
    if not isinstance(node, Mapping):
        return False
    combined = [key for key in _COMBINE if key in node]
    if len(combined) + ("properties" in node) > 1 or len(node.get("allOf") or ()) > 1:
        return True
    parts = [part for key in _OF_SCHEMAS if isinstance(node.get(key), Mapping) for part in node[key].values()]
    parts += [part for key in _LISTS if isinstance(node.get(key), list) for part in node[key]]
    return any(_merges(part) for part in [*parts, *(node.get(key) for key in _SINGLE)])
