"""What may be written: never a value that the given schema refuses, and no property that it does not declare."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.toolkit.tools.constraint import constrain, translate
from dualtune_edge.toolkit.tools.parts import SchemaReadError
from dualtune_edge.toolkit.tools.schemas import read_schema

Schema = dict[str, Any]
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
ONE: Schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
TWO: Schema = {"type": "object", "properties": {"b": {"type": "integer"}}}


def may_be_written(schema: Schema, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(constrain(schema).schema).is_valid(value))


def argument(schema: Any, **more: Any) -> Schema:
    return {"type": "object", "properties": {"x": schema}, **more}


REFERENCES = {
    "a definition": argument({"$ref": "#/$defs/One"}, **{"$defs": {"One": ONE}}),
    "draft 7": argument({"$ref": "#/definitions/One"}, **{"$schema": DRAFT_7, "definitions": {"One": ONE}}),
    "an anchor": argument({"$ref": "#one"}, **{"$defs": {"One": {"$anchor": "one", **ONE}}}),
    "an escaped name": argument({"$ref": "#/$defs/the%20one"}, **{"$defs": {"the one": ONE}}),
    "an escaped slash": argument({"$ref": "#/$defs/the~1one"}, **{"$defs": {"the/one": ONE}}),
    "a list's index": {"properties": {"x": {"$ref": "#/properties/y/anyOf/1"}, "y": {"anyOf": [TWO, ONE]}}},
    "a property": {"properties": {"x": {"$ref": "#/properties/y"}, "y": ONE}},
    "beside a description": argument({"$ref": "#/$defs/One", "description": "the one"}, **{"$defs": {"One": ONE}}),
    "beside properties": argument({"$ref": "#/$defs/One", "properties": {}}, **{"$defs": {"One": ONE}}),
    "through another": argument({"$ref": "#/$defs/A"}, **{"$defs": {"A": {"$ref": "#/$defs/One"}, "One": ONE}}),
    "alone in allOf": argument({"allOf": [{"$ref": "#/$defs/One"}]}, **{"$defs": {"One": ONE}}),
    "a dynamic one": argument({"$dynamicRef": "#one"}, **{"$defs": {"One": {"$dynamicAnchor": "one", **ONE}}}),
    "inside of a resource": argument({"$id": "http://x.org/y", "$ref": "#/$defs/One", "$defs": {"One": ONE}}),
    "in anyOf": argument({"anyOf": [{"$ref": "#/$defs/One"}, {"type": "null"}]}, **{"$defs": {"One": ONE}}),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_an_object_behind_a_reference_is_closed_like_an_inline_one(name: str) -> None:
    schema = REFERENCES[name]
    assert may_be_written(schema, {"x": {"a": 1}})
    assert not may_be_written(schema, {"x": {"a": 1, "invented": True}})
    assert not may_be_written(schema, {"x": {"a": "1"}})
    assert not may_be_written(schema, {"x": {"a": 1}, "invented": True})


def test_a_schema_may_refer_to_itself_inside() -> None:
    tree = {"properties": {"name": {"type": "string"}, "next": {"$ref": "#", "description": "the next one"}}}
    assert may_be_written(tree, {"name": "a", "next": {"name": "b", "next": {}}})
    assert not may_be_written(tree, {"name": "a", "next": {"name": "b", "next": {"invented": 1}}})


@pytest.mark.parametrize("reference", ["#/$defs/none", "#none", "https://example.com/a", "other.json"])
def test_a_reference_must_lead_somewhere_inside(reference: str) -> None:
    with pytest.raises(SchemaReadError, match=r"which leads (nowhere|to another document)"):
        constrain(argument({"$ref": reference}))


def test_declared_objects_are_closed_at_every_depth() -> None:
    schema = {"properties": {"x": ONE, "many": {"type": "array", "items": ONE}, "map": {"additionalProperties": ONE}}}
    assert may_be_written(schema, {"x": {"a": 1}, "many": [{"a": 2}], "map": {"k": {"a": 3}}})
    for value in ({"z": 1}, {"x": {"z": 1}}, {"many": [{"z": 1}]}, {"map": {"k": {"z": 1}}}):
        assert not may_be_written(schema, value)


def test_what_says_that_it_is_open_stays_open() -> None:
    assert may_be_written(argument({"type": "object"}), {"x": {"HOME": "/"}})
    for opening in ({"additionalProperties": True}, {"additionalProperties": {}}, {"patternProperties": {"^z": {}}}):
        assert may_be_written(argument({**ONE, **opening}), {"x": {"z": 1}})
    assert not may_be_written(argument({**ONE, "additionalProperties": False}), {"x": {"z": 1}})


@pytest.mark.parametrize("parameters", [{}, {"type": "object"}, {"type": "object", "properties": {}, "title": "No"}])
def test_arguments_without_properties_are_none(parameters: Schema) -> None:
    assert may_be_written(parameters, {})
    assert not may_be_written(parameters, {"z": 1})


@pytest.mark.parametrize("properties", [{}, {"properties": {}}, {"properties": {"b": {}}}])
def test_a_required_property_without_a_schema_takes_any_value(properties: Schema) -> None:
    schema = {"type": "object", "required": ["a"], **properties}
    for value in (1, "s", None, [{}]):
        assert may_be_written(schema, {"a": value})
    assert not may_be_written(schema, {})
    assert not may_be_written(schema, {"a": 1, "z": 2})


COMPOSED = {
    "allOf": argument({"allOf": [ONE, TWO]}),
    "allOf of references": argument({"allOf": [{"$ref": "#/$defs/1"}, TWO]}, **{"$defs": {"1": ONE}}),
    "beside a reference": argument({"$ref": "#/$defs/1", **TWO}, **{"$defs": {"1": ONE}}),
    "nested": argument({"allOf": [{"allOf": [ONE]}, {"anyOf": [TWO, {"required": ["a"]}]}]}),
    "a condition": argument({**ONE, "if": {"required": ["a"]}, "then": TWO}),
    "required alone": argument({**ONE, "required": ["b"]}),
    "at the top": {"properties": {"x": {"allOf": [ONE, TWO]}}, "anyOf": [{"required": ["x"]}, {"required": ["y"]}]},
}


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composed_object_takes_what_any_of_its_parts_declares_and_nothing_else(name: str) -> None:
    assert may_be_written(COMPOSED[name], {"x": {"a": 1, "b": 2}})
    assert not may_be_written(COMPOSED[name], {"x": {"a": 1, "b": 2, "invented": 3}})


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
def test_alternatives_are_closed_each_on_its_own(key: str) -> None:
    one, two = {**ONE, "required": ["a"]}, {**TWO, "required": ["b"]}
    schema = argument({key: [one, two, {"type": "null"}]})
    assert may_be_written(schema, {"x": {"a": 1}})
    assert may_be_written(schema, {"x": None})
    assert not may_be_written(schema, {"x": {"a": 1, "b": 2}})
    beside = argument({"properties": {"c": {}}, key: [one, two]})
    assert may_be_written(beside, {"x": {"a": 1, "c": 2}})
    assert not may_be_written(beside, {"x": {"c": 2}})
    assert not may_be_written(beside, {"x": {"a": 1, "invented": 2}})


def test_not_and_if_are_never_closed() -> None:
    """Closing them would let through what they refuse."""
    inner = argument({"not": ONE})
    assert translate(inner)["properties"]["x"] == {"not": ONE}
    assert constrain(inner).left == ("`not` of 'x'",)
    assert read_schema(inner, "test").fault({"x": {"a": 1, "z": 2}})


OVERLAPPING = {
    "as given": [
        {"type": "object", "properties": {"row": {"enum": [2]}}, "required": ["row"]},
        {"type": "object", "properties": {"row": {"enum": [2]}, "column": {"enum": [3]}}, "required": ["row"]},
    ],
    "numbers": [{"type": "number"}, {"type": "integer"}],
    "optional": [ONE, TWO],
    "values": [{"enum": [1, 2]}, {"enum": [2.0, 3]}],
    "references": [{"$ref": "#/$defs/1"}, {"type": "object"}],
}
APART = {
    "types": [{"type": "string"}, {"type": "object"}, {"type": ["integer", "null"]}],
    "a tag": [
        {"type": "object", "properties": {"kind": {"const": kind}, "n": {}}, "required": ["kind"]} for kind in "ab"
    ],
    "required by each": [{**ONE, "required": ["a"]}, {**TWO, "required": ["b"]}],
    "values": [{"enum": ["x", "y"]}, {"const": "z"}],
    "a type under a tag": [
        {"type": "object", "properties": {"v": {"type": kind}}, "required": ["v"]} for kind in ("string", "array")
    ],
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_one_of_that_may_overlap_is_left_to_the_check_and_named(name: str) -> None:
    schema = argument({"oneOf": OVERLAPPING[name]}, **{"$defs": {"1": ONE}})
    assert constrain(schema).left == ("`oneOf` of 'x', whose alternatives may overlap",)


@pytest.mark.parametrize("name", APART)
def test_one_of_whose_alternatives_exclude_each_other_is_held(name: str) -> None:
    assert constrain(argument({"oneOf": APART[name]})).left == ()


def test_a_value_that_only_the_closed_schema_takes_is_refused() -> None:
    alternatives = [{**OVERLAPPING["as given"][0]}, {**OVERLAPPING["as given"][1], "required": ["row", "column"]}]
    reading = read_schema(argument({"minProperties": 2, "oneOf": alternatives}), "test")
    assert "valid under each of" in (reading.fault({"x": {"row": 2, "column": 3}}) or "")


UNHELD = {
    "`minimum` of 'x'": {"type": "integer", "minimum": -(2**63)},
    "`maximum` of 'x'": {"type": "number", "maximum": 1.7976931348623157e308},
    "`maxLength` of 'x'": {"type": "string", "maxLength": 2**53 - 1},
    "`maxItems` of 'x'": {"type": "array", "maxItems": 2**53 - 1},
    "`uniqueItems` of 'x[].tags'": {"items": {"properties": {"tags": {"type": "array", "uniqueItems": True}}}},
    "`propertyNames` of 'x'": {"type": "object", "propertyNames": {"pattern": "^a"}},
    "`contains` of 'x[1]'": {"prefixItems": [{}, {"contains": {"type": "null"}}]},
    "`dependentRequired` of 'x'": {"dependentRequired": {"a": ["b"]}},
}


@pytest.mark.parametrize("name", UNHELD)
def test_what_a_grammar_cannot_hold_is_named_by_its_property(name: str) -> None:
    constraint = constrain(argument(UNHELD[name]))
    assert constraint.left == (name,)
    assert name.split("`")[1] not in str(constraint.schema)


def test_a_format_that_nobody_checks_is_named() -> None:
    constraint = constrain(argument({"type": "integer", "format": "int64"}))
    assert (constraint.left, constraint.ignored) == ((), ("the format 'int64' of 'x'",))
    assert constrain(argument({"type": "string", "format": "uuid"})).ignored == ()


def test_a_pattern_is_written_as_the_grammar_reads_it_and_look_around_is_left_to_the_check() -> None:
    given = {"type": "object", "patternProperties": {"^[[]": {"type": "string", "pattern": "^(?!a)[a-z[]+$"}}}
    constraint = constrain(argument(given))
    assert constraint.schema["properties"]["x"]["patternProperties"] == {
        r"^[\[]": {"type": "string", "pattern": r"^[a-z\[]+$"}
    }
    assert constraint.left == ("look-around in the `pattern` of 'x.^[[]'",)
    reading = read_schema(argument(given), "test")
    assert reading.fault({"x": {"[": "b["}}) is None
    assert reading.fault({"x": {"[": "a["}})


def test_the_given_schema_is_left_as_it_was() -> None:
    schema = argument({"$ref": "#/$defs/One"}, **{"$defs": {"One": {**ONE, "description": None}}})
    before = repr(schema)
    constrain(schema)
    translate(schema)
    assert repr(schema) == before


leaves = st.sampled_from(
    [
        {"type": "integer"}, {"type": "null"}, {"enum": [1, "s"]}, {"const": 2}, {"type": ["integer", "string"]}, {},
        {"type": "object"}, {"$ref": "#/$defs/D"}, {"$ref": "#/$defs/E"}, True,
    ]
)  # fmt: skip


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from("abc")
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(names, inner, max_size=2)},
        optional={
            "required": st.lists(names, unique=True, max_size=2),
            "additionalProperties": st.booleans(),
            "unevaluatedProperties": st.booleans(),
        },
    )


def composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    keys = dict.fromkeys(("allOf", "anyOf", "oneOf"), several)
    return st.fixed_dictionaries(
        {}, optional={**keys, "not": inner, "properties": st.dictionaries(st.just("a"), inner)}
    )


schemas = st.recursive(leaves, lambda inner: objects(inner) | composed(inner), max_leaves=6)
values = st.recursive(
    st.sampled_from([1, 2, "s", None]), lambda inner: st.dictionaries(st.sampled_from("abcz"), inner, max_size=3)
)


@pytest.mark.slow
@given(schemas, objects(leaves), objects(schemas), values)
def test_what_may_be_written_is_valid_as_given(schema: Any, one: Any, two: Any, value: Any) -> None:
    whole = argument(schema, **{"$defs": {"D": one, "E": two}})
    try:
        reading = read_schema(whole, "test")
    except Exception as error:  # noqa: BLE001 - a circle
        assert "itself" in str(error)  # noqa: PT017
        return
    arguments = {"x": value}
    if jsonschema.Draft202012Validator(reading.constraint.schema).is_valid(arguments):
        given = jsonschema.Draft202012Validator(whole).is_valid(arguments)
        assert given or reading.constraint.left
        assert (reading.fault(arguments) is None) == given
