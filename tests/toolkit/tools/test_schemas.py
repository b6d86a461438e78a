"""A schema that was read says why a call cannot have some arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.schemas import read_schema

READ = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def test_arguments_fit_the_schema_and_hold_what_it_declares() -> None:
    reading = read_schema(READ, "test")
    assert reading.fault({"path": "a"}) is None
    assert reading.fault({"path": 1}) == "1 is not of type 'string' (at $.path)"
    assert reading.fault({"path": "a", "mode": "r"}) == "properties that are not declared: 'mode' (at $)"
    assert "required" in (reading.fault({}) or "")


def test_a_schema_that_is_one_is_judged_as_it_was_given() -> None:
    assert read_schema(READ, "test").schema == READ


# fmt: off
KEYWORDS = (
    "id", "$id", "$ref", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$defs", "definitions", "$schema",
    "type", "multipleOf", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "maxLength", "minLength",
    "pattern", "additionalItems", "items", "prefixItems", "maxItems", "minItems", "uniqueItems", "contains",
    "maxProperties",
    "minProperties", "required", "additionalProperties", "properties", "patternProperties", "dependencies",
    "dependentSchemas", "dependentRequired", "propertyNames", "const", "enum", "format", "if", "then", "else", "allOf",
    "anyOf", "oneOf", "not", "unevaluatedItems", "unevaluatedProperties", "default", "description", "title",
)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1.5, "", "#", "x", "string", [], [1], ["a"], [None], [[]], [{}], {}, {"a": {}}, {"a": 1},
    {"a": ["b"]}, {"type": 5}, {"$ref": 5}, {"allOf": 5},
)
FRAMES: tuple[Callable[[str, Any], dict[str, Any]], ...] = (
    lambda key, value: {"type": "object", key: value},
    lambda key, value: {"type": "dict", "properties": {"p": {"type": "dict", key: value}}},
    lambda key, value: {"type": "object", "properties": {"p": {"type": "whole", key: value}}},
    lambda key, value: {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"p": {key: value}}},
    lambda key, value: {"$schema": "http://json-schema.org/draft-04/schema#", key: value},
    lambda key, value: {"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"p": {key: value}}},
    lambda key, value: {"$schema": "https://example.org/own", "allOf": [{"anyOf": [{key: value}]}]},
)
# fmt: on


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_whatever_a_keyword_holds_the_schema_is_read_or_refused_by_name(keyword: str) -> None:
    for frame in FRAMES:
        for value in VALUES:
            with contextlib.suppress(ToolsError):
                reading = read_schema(frame(keyword, value), "tools.json, tool 1")
                for arguments in ({}, {"p": 1}, {"p": {"a": []}}, {"p": ["a"]}):
                    reading.fault(arguments)
