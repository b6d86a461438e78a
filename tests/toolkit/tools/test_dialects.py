"""Schemas of other drafts and of BFCL mean in 2020-12 what they mean there."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.schemas import Reading, read_schema

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
TUPLE = {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False}
BELOW = {"type": "number", "minimum": 0, "exclusiveMinimum": True}


def reading(schema: Any, **more: Any) -> Reading:
    return read_schema({"type": "object", "properties": {"x": schema}, **more}, "test")


def takes(found: Reading, value: Any) -> bool:
    """Whether a value may be written and is accepted; both must say the same."""
    written = jsonschema.Draft202012Validator(found.constraint.schema).is_valid({"x": value})
    assert written == (found.fault({"x": value}) is None)
    return bool(written)


@pytest.mark.parametrize("dialect", [{}, {"$schema": DRAFT_7}, {"$schema": "http://json-schema.org/schema#"}])
def test_a_list_under_items_is_a_tuple(dialect: Any) -> None:
    for schema in (TUPLE, {"anyOf": [TUPLE, {"type": "null"}]}):
        found = reading(schema, **dialect)
        assert takes(found, [1, "a"])
        assert not takes(found, ["a", 1])
        assert not takes(found, [1, "a", 2])


@pytest.mark.parametrize("dialect", [{}, {"$schema": DRAFT_4}])
def test_a_boolean_exclusive_minimum_is_draft_4s(dialect: Any) -> None:
    found = reading(BELOW, **dialect)
    assert takes(found, 0.5)
    assert not takes(found, 0)
    assert takes(reading({**BELOW, "exclusiveMinimum": False}, **dialect), 0)


def test_a_schema_is_judged_by_its_own_draft() -> None:
    sibling = {"$ref": "#/definitions/d", "minimum": 5}
    definitions = {"definitions": {"d": {"type": "integer"}}}
    assert takes(reading(sibling, **{"$schema": DRAFT_7}, **definitions), 1)  # draft 7 ignores what stands beside it
    assert not takes(reading(sibling, **definitions), 1)
    needed = {"type": "object", "properties": {"a": {}, "b": {}}, "dependencies": {"a": ["b"]}}
    assert reading(needed, **{"$schema": DRAFT_7}).fault({"x": {"a": 1}})
    assert reading(needed).fault({"x": {"a": 1}}) is None


@pytest.mark.parametrize("name", ["https://json-schema.org/draft-07/schema", DRAFT_7, DRAFT_7[:-1]])
def test_a_drafts_name_is_known_however_it_is_spelt(name: str) -> None:
    assert takes(reading({"$ref": "#/definitions/d", "minimum": 5}, **{"$schema": name, "definitions": {"d": {}}}), 1)


@pytest.mark.parametrize(
    "words", [{"description": None}, {"title": None, "items": None}, {"enum": None, "minimum": None, "pattern": None}]
)
def test_a_keyword_that_holds_null_is_absent(words: Any) -> None:
    for dialect in ({}, {"$schema": DRAFT_7}):
        found = reading({"type": "string", **words}, **dialect)
        assert takes(found, "a")
        assert not takes(found, 1)
    assert takes(reading({"const": None}), None)
    assert takes(reading({"enum": [None, 1], "default": None}), None)


def test_an_empty_list_under_items_says_nothing() -> None:
    for dialect in ({}, {"$schema": DRAFT_7}, {"$schema": None}):
        assert takes(reading({"type": "array", "items": []}, **dialect), [1, "a"])
    closed = reading({"type": "array", "items": [], "additionalItems": False})
    assert takes(closed, [])
    assert not takes(closed, [1])


@pytest.mark.parametrize("dialect", [{}, {"$schema": DRAFT_7}])
def test_a_count_may_be_written_with_a_fraction_of_zero(dialect: Any) -> None:
    text = reading({"type": "string", "minLength": 1.0, "maxLength": 2.0}, **dialect)
    assert [takes(text, value) for value in ("", "a", "abc")] == [False, True, False]
    assert text.constraint.schema["properties"]["x"]["maxLength"] == 2
    assert type(text.constraint.schema["properties"]["x"]["maxLength"]) is int


@pytest.mark.parametrize("types", [["object"], ["object", "null"], None])
def test_the_arguments_are_an_object_however_that_is_said(types: Any) -> None:
    found = read_schema({"type": types, "properties": {"x": {}}}, "test")
    assert found.constraint.schema["type"] == "object"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("String", "a", 1), ("char", "a", 1), ("long", 1, "a"), ("short", 1, 0.5), ("byte", 1, "a"), ("Bigint", 1, "a"),
        ("double", 0.5, "a"), ("float", 0.5, "a"), ("Boolean", True, "a"), ("bool", True, 1),
        ("ArrayList", [1], {}), ("Array", [1], {}), ("Queue", [1], {}), ("Stack", [1], {}), ("list", [1], {}),
        ("tuple", [1], {}), ("Set", [1], {}), ("HashMap", {"k": 1}, []), ("Hashtable", {"k": 1}, []), ("dict", {}, []),
    ],
)  # fmt: skip
def test_bfcls_names_of_types_are_read_as_its_own_mapping_has_them(name: str, good: Any, bad: Any) -> None:
    for schema in ({"type": name}, {"anyOf": [{"type": name}]}):
        found = reading(schema, type="dict")
        assert takes(found, good)
        assert not takes(found, bad)
    with pytest.raises(ToolsError, match=name):
        reading({"type": name})


def test_bfcls_any_holds_anything() -> None:
    for value in (1, "a", [None], {"k": 1}):
        assert takes(reading({"type": "any"}, type="dict"), value)


def test_an_enum_beside_a_list_of_bfcl_means_the_items() -> None:
    extras = {"type": "array", "items": {"type": "string"}, "enum": ["milk", "lemon"]}
    found = reading(extras, type="dict")
    assert takes(found, ["milk", "lemon"])
    assert not takes(found, ["sugar"])
    assert takes(reading({"type": "array", "enum": [["milk"]]}, type="dict"), ["milk"])


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "draft 3"),
        ({"$schema": 5}, r"\$schema 5"),
        ({"type": ["array", "null"]}, "arguments of type"),
        (
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"x": BELOW}},
            "True is not of type",
        ),
        ({"properties": {"x": {"type": "text"}}}, "'text' .*properties/x/type"),
        ({"properties": {"x": {"type": "dict"}}}, "'dict'"),
        ({"properties": {"x": {"required": True}}}, "`required` that is bool, of x"),
        (["a"], "a schema that is list"),
    ],
)
def test_what_no_draft_has_is_refused(schema: Any, complaint: str) -> None:
    with pytest.raises(ToolsError, match=complaint):
        read_schema(schema, "test")


def test_of_bfcls_types_the_one_that_its_mapping_lacks_is_named() -> None:
    properties = {"a": {"type": "short"}, "b": {"type": "HashMap"}, "c": {"type": "HashSet"}}
    with pytest.raises(ToolsError, match=r"'HashSet'.*properties/c/type") as refusal:
        read_schema({"type": "dict", "properties": properties}, "tools.json")
    assert "short" not in str(refusal.value)
