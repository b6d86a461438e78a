from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.toolkit.prompts.ordering import in_schema_order

GIVEN, ORDERED = {"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}
INNER = {"type": "object", "properties": {"b": {}, "a": {}}}


@pytest.mark.parametrize(
    ("schema", "value", "ordered"),
    [
        (INNER, {"a": 1, "z": 2, "b": 3}, {"b": 3, "a": 1, "z": 2}),
        ({"properties": {"x": {"items": INNER}}}, {"x": [{"a": 1, "b": 2}]}, {"x": [{"b": 2, "a": 1}]}),
        ({"properties": {"x": {"prefixItems": [INNER]}}}, {"x": [{"a": 1, "b": 2}, 3]}, {"x": [{"b": 2, "a": 1}, 3]}),
        ({"additionalProperties": INNER}, {"k": {"a": 1, "b": 2}}, {"k": {"b": 2, "a": 1}}),
        ({"$defs": {"i/": INNER}, "properties": {"x": {"$ref": "#/$defs/i~1"}}}, GIVEN, ORDERED),
        ({"properties": {"x": {"anyOf": [{"type": "string"}, INNER]}}}, GIVEN, ORDERED),
        ({"properties": {"x": {"oneOf": [{"type": "null"}, INNER]}}}, GIVEN, ORDERED),
        ({"allOf": [INNER]}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"$ref": "#"}, {"a": 1}, {"a": 1}),
        ({"$ref": "#/nowhere"}, {"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_declared_properties_come_first_in_the_schemas_order(schema: Any, value: Any, ordered: Any) -> None:
    assert json.dumps(in_schema_order(value, schema)) == json.dumps(ordered)


@given(st.permutations(["b", "a", "z", "y"]))
def test_nothing_is_added_or_lost(names: list[str]) -> None:
    value = {name: {"k": name} for name in names}
    found = in_schema_order(value, INNER)
    assert found == value
    assert list(found)[:2] == ["b", "a"]
    assert list(found)[2:] == [name for name in names if name in "zy"]
