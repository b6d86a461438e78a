"""Schemas that would stall a device are refused by their cost, not by their looks."""
# ruff: noqa: E501 - lists of schemas

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.schema_bounds import check_bounds
from dualtune_edge.toolkit.tools.schemas import read_schema

Schema = dict[str, Any]


def nested(times: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(times):
        inner = wrap(inner)
    return inner


def chain(length: int, step: Callable[[str], Schema]) -> Schema:
    """$defs of which each refers to the next one."""
    steps: Schema = {f"d{number}": step(f"#/$defs/d{number + 1}") for number in range(length)}
    return {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**steps, f"d{length}": {"type": "integer"}}}


def argument(schema: Any) -> Schema:
    return {"type": "object", "properties": {"a": schema}}


def properties(schema: Callable[[int], Schema], count: int = 250) -> Schema:
    return {"type": "object", "properties": {f"p{number}": schema(number) for number in range(count)}}


TOO_MUCH = {
    "a long constant": (argument({"const": "x" * 5_000_000}), "characters"),
    "long values": (argument({"enum": [str(n) * 1_000_000 for n in range(9)]}), "characters"),
    "many long values": (argument({"enum": [f"{n:0300d}" for n in range(1_500)]}), "characters"),
    "a long name": (argument({"properties": {"x" * 100_000: {}}}), "characters"),
    "a long description": (argument({"description": "x" * 1_000_000}), "characters"),
    "many values": (argument({"enum": list(range(limits.SCHEMA_NODES))}), "values"),
    "many properties": ({"properties": {f"p{n}": True for n in range(limits.SCHEMA_PROPERTIES + 1)}}, "properties in"),
    "depth": (argument(nested(100_000, lambda inner: {"items": inner}, {})), "nesting"),
    "depth of data": (argument({"const": nested(100_000, lambda inner: [inner], 1)}), "nesting"),
    "a large multiple": (argument({"type": "integer", "multipleOf": 9_999_991}), "multipleOf"),
    "a fine multiple": (argument({"type": "number", "multipleOf": 0.0123457}), "multipleOf"),
    "multiples together": (argument({"allOf": [{"multipleOf": prime} for prime in (97, 89, 83)]}), "multipleOf"),
    "multiples by reference": (
        {"properties": {"a": {"$ref": "#/$defs/x", "multipleOf": 997}}, "$defs": {"x": {"multipleOf": 991}}},
        "multipleOf",
    ),
    "multiples of many values": ({"properties": {f"p{n}": {"multipleOf": 997} for n in range(20)}}, "multipleOf"),
    "a long list of a pattern": (argument({"items": {"pattern": "^x{4000}$"}, "minItems": 500}), "a list of at least"),
    "a long list of a constant": (argument({"items": {"const": "x" * 4_000}, "minItems": 500}), "a list of at least"),
    "lists of lists": (argument({"items": {"items": {"enum": ["abc"]}, "minItems": 900}, "minItems": 900}), "a list of"),
    "a long list of objects": (
        argument({"items": {"properties": {"k": {"const": "x" * 99}}, "required": ["k"]}, "minItems": 500}), "a list of"
    ),
    "digits": (argument({"minimum": 10**4_000}), "digits"),
    "a repetition": (argument({"pattern": "a{99999999999999}"}), "texts of 99999999999999 characters"),
    "groups": (argument({"pattern": "(" * 5_000 + ")" * 5_000}), "count as over"),
    "groups in not": (argument({"not": {"pattern": "(" * 2_000 + ")" * 2_000}}), "nested"),
    "a name spelled twice": ({"patternProperties": {r"\<a": {"type": "null"}, "<a": {}}}, "are one"),
    "look-around in a name": ({"patternProperties": {"^(?!a)b": {}}}, "look-around"),
    "look-around in not": (argument({"not": {"pattern": "(?=a)b"}}), "look-around"),
    "a pattern of names": (argument({"propertyNames": {"pattern": "("}}), "unclosed"),
    "a pattern as a name": (argument({"patternProperties": {"(": {}}}), "unclosed"),
    "a pattern in a definition": ({"$defs": {"x": {"pattern": "["}}}, "unclosed"),
    "a pattern behind a pointer": ({"$ref": "#/x-own", "x-own": {"pattern": "["}}, "unclosed"),
    "patterns": (argument({"allOf": [{"pattern": letter * 1_000} for letter in "abcdefghi"]}), "count as over"),
    "itself": ({"$ref": "#"}, "refers to itself"),
    "not itself": ({"not": {"$ref": "#"}}, "refers to itself"),
    "not itself, in a property": (argument({"not": {"$ref": "#/properties/a"}}), "refers to itself"),
    "each other": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"if": {"$ref": "#/$defs/a"}}}},
        "refers to itself",
    ),
    "itself by anchor": ({"$anchor": "me", "oneOf": [{"$ref": "#me"}, {}]}, "refers to itself"),
    "itself by a dynamic reference": ({"$dynamicAnchor": "me", "allOf": [{"$dynamicRef": "#me"}]}, "refers to itself"),
    "itself by an escaped pointer": ({"$defs": {"a b": {"not": {"$ref": "#/$defs/a%20b"}}}}, "refers to itself"),
    "itself through a list": ({"allOf": [{"not": {"$ref": "#/allOf/0"}}]}, "refers to itself"),
    "itself where a property is": ({"dependentSchemas": {"a": {"$ref": "#"}}}, "refers to itself"),
    "doubling by anyOf": (chain(20, lambda to: {"anyOf": [{"$ref": to}, {"$ref": to}]}), "for one value"),
    "doubling by allOf": (chain(20, lambda to: {"allOf": [{"$ref": to}, {"$ref": to}]}), "for one value"),
    "doubling beside": (chain(20, lambda to: {"$ref": to, "not": {"$ref": to}}), "for one value"),
    "a long chain": (chain(900, lambda to: {"$ref": to}), "chain of over"),
    "a long chain of objects": (chain(200, lambda to: {"properties": {"x": {"$ref": to}}}), "chain of over 128"),
    "alternatives of objects": (argument({"oneOf": [{"properties": {"k": {"const": n}}} for n in range(140)]}), "over 512"),
    "alternatives": (argument({"anyOf": [{"type": "string"}] * 600}), "over 512 schemas for one value"),
    "dependent schemas": (argument({"dependentSchemas": {f"p{n}": {"required": ["a"]} for n in range(200)}}), "over 512 schemas"),
    "alternatives of alternatives": (
        argument({"allOf": [{"anyOf": [{"pattern": f"{n}"}, {"const": n}, {}]} for n in range(8)]}),
        "over 1024 ways",
    ),
    "alternatives of two kinds": (
        argument({"$ref": "#/$defs/x", "anyOf": [{}] * 11}) | {"$defs": {"x": {"oneOf": [{}] * 10, "anyOf": [{}] * 10}}},
        "over 1024 ways",
    ),
    "many patterns": (properties(lambda n: {"pattern": f"^{n}$"}), "count as over"),
    "many patterns of Unicode": (properties(lambda n: {"pattern": rf"^\p{{L}}{n}$"}, 41), "count as over"),
    "many lengths of a format": (properties(lambda n: {"format": "uri", "maxLength": n}, 41), "count as over"),
    "a format with others": (properties(lambda n: {"allOf": [{"format": "uri"}, {"maxLength": n}]}, 41), "count as over"),
    "a format by reference": (
        {**properties(lambda n: {"$ref": "#/$defs/u", "maxLength": n}, 41), "$defs": {"u": {"format": "uri"}}},
        "count as over",
    ),
    "a format of alternatives": (
        properties(lambda n: {"format": "uri", "anyOf": [{"maxLength": n}, {"minLength": n}]}, 21),
        "count as over",
    ),
    "patterns and unevaluated": (
        argument({"patternProperties": {"^a": {}}, "unevaluatedProperties": False}),
        "unevaluatedProperties",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_costs_too_much_is_refused_by_name(name: str) -> None:
    schema, complaint = TOO_MUCH[name]
    for refuse in (check_bounds, read_schema):
        with pytest.raises(ToolsError, match=complaint) as refusal:
            refuse(schema, "list.json, tool 1")
        assert refusal.value.where.startswith("list.json, tool 1")
        assert len(str(refusal.value)) < 400


DESCRIBED = {"title": "a", "description": "b", "$comment": "c", "default": "d"}
FINE = {
    "a tree": {"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
    "a tree by choice": {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
    "a deep graph": chain(60, lambda to: {"properties": {"x": {"$ref": to}}}),
    "definitions that nobody refers to": {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(60)}},
    "values with titles": argument({"oneOf": [{"const": f"zone {n}", "title": "a"} for n in range(500)]}),
    "events": argument({"anyOf": [{"properties": {"event": {"const": n}}} for n in range(100)]}),
    "a wide graph": chain(40, lambda to: {"properties": {"x": {"$ref": to}, "y": {"$ref": to}}}),
    "small multiples": argument({"allOf": [{"multipleOf": 0.25}, {"multipleOf": 60}, {"multipleOf": 1000}]}),
    "unrelated multiples": {"properties": {f"p{prime}": {"multipleOf": prime} for prime in (997, 991, 983)}},
    "data that look like schemas": argument({"const": {"pattern": "(", "$ref": "#"}, "default": {"pattern": "["}}),
    "properties named like keywords": {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}},
    "more descriptions than values": properties(lambda _: {"type": "array", "items": DESCRIBED, **DESCRIBED}),
    "an object of 2,500 values": properties(lambda n: properties(lambda _: {"type": "string", "title": f"{n}"}, 15), 78),
    "int64": argument({"minimum": -(2**63), "maximum": 2**63 - 1}),
    "time zones": argument({"enum": [f"Continent/City_of_number_{n}" for n in range(600)]}),
    "a reference that leads nowhere": argument({"$ref": "#/$defs/none"}),
    "true": {"properties": {"a": True}},
    "equal formats": properties(lambda n: {"type": ["string", "null"], "format": "uri", "description": f"{n}"}),
    "equal formats of alternatives": properties(lambda n: {"anyOf": [{"format": "uri"}, {"type": "null"}], "title": f"{n}"}, 200),
    "equal patterns": properties(lambda _: {"pattern": "x" * 100}),
    "equal texts by reference": {**properties(lambda _: {"$ref": "#/$defs/u"}), "$defs": {"u": {"format": "uri"}}},
    "an old reference": {
        **properties(lambda n: {"allOf": [{"$ref": "#/$defs/u"}], "title": f"{n}"}), "$defs": {"u": {"format": "uri"}},
    },
    "formats that nobody checks": properties(lambda n: {"format": "int64", "maxLength": n}),
    "40 of a kind": properties(lambda n: {"format": "date-time", "maxLength": n}, 40),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_people_write_is_within(name: str) -> None:
    check_bounds(FINE[name], "test")
