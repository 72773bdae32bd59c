"""Which objects of a schema are closed to further keys, and the layout of the JSON."""

import json

import pytest

from rag_backbone.engine.json_schema import closed, compiled_schema


def test_objects_that_list_their_properties_are_closed():
    inner = {"type": "object", "properties": {"properties": {"type": "string"}}}
    schema = {"properties": {"a": inner, "b": {"type": "array", "items": inner}}, "$defs": {"c": inner}}
    shut = {**inner, "additionalProperties": False}
    assert closed(schema) == {
        "properties": {"a": shut, "b": {"type": "array", "items": shut}},
        "$defs": {"c": shut},
        "additionalProperties": False,
    }
    assert "additionalProperties" not in inner  # the argument is not modified


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "required": ["b"]},
        {"properties": {"a": {}}, "patternProperties": {"^x": {}}},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {"enum": [{"properties": {"a": 1}}]},
    ],
)
def test_a_schema_with_rules_for_other_keys_is_left_as_it_is(schema):
    assert closed(schema) == schema


def test_alternatives_are_closed_each_on_its_own():
    one, other = {"properties": {"a": {}}}, {"properties": {"b": {}}}
    assert closed({"anyOf": [one, other, {"type": "null"}]}) == {
        "anyOf": [
            {"properties": {"a": {}}, "additionalProperties": False},
            {"properties": {"b": {}}, "additionalProperties": False},
            {"type": "null"},
        ]
    }


def test_parts_of_one_object_deep_in_a_schema_leave_all_of_it_open():
    merged = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    schema = {"properties": {"list": {"type": "array", "items": merged}}}
    assert closed(schema) == schema


def test_the_layout_is_that_of_json_dumps_unless_the_schema_sets_another():
    schema = {"properties": {"a": {}}}
    plain = json.loads(compiled_schema(schema))
    assert plain["additionalProperties"] is False
    assert plain["x-guidance"] == {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    tight = json.loads(compiled_schema({**schema, "x-guidance": {"item_separator": ","}}))
    assert tight["x-guidance"] == {**plain["x-guidance"], "item_separator": ","}
    assert "x-guidance" not in schema
