"""Schemas are judged as jsonschema judges them, only sooner."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from dualtune_edge.toolkit.tools.metaschemas import checker

DRAFTS = {
    name: getattr(jsonschema, name)
    for name in (
        "Draft202012Validator",
        "Draft201909Validator",
        "Draft7Validator",
        "Draft6Validator",
        "Draft4Validator",
    )
}
# fmt: off
KEYWORDS = (
    "$id", "$ref", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor", "$defs",
    "definitions", "$comment", "title", "description", "default", "deprecated", "readOnly", "examples",
    "multipleOf", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "maxLength", "minLength",
    "pattern", "additionalItems", "items", "prefixItems", "maxItems", "minItems", "uniqueItems", "contains",
    "maxContains", "minContains", "maxProperties", "minProperties", "required", "additionalProperties",
    "properties", "patternProperties", "dependencies", "dependentSchemas", "dependentRequired", "propertyNames",
    "const", "enum", "type", "format", "if", "then", "else", "allOf", "anyOf", "oneOf", "not", "unevaluatedItems",
    "unevaluatedProperties", "contentEncoding", "contentSchema", "unknown",
)
# fmt: on
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    "",
    "a",
    "#",
    "a#b",
    "#/$defs/x",
    "string",
    [],
    [1],
    ["a"],
    ["a", "a"],
    [{}],
    {},
    {"a": {}},
    {"a": ["b"]},
    {"a": 1},
    {"type": "integer"},
    {"type": "whole"},
    ["integer", "null"],
)  # fmt: skip


@pytest.mark.parametrize("name", DRAFTS)
def test_every_keyword_with_every_value(name: str) -> None:
    draft: Any = DRAFTS[name]
    theirs = draft(draft.META_SCHEMA)
    for keyword in KEYWORDS:
        for value in VALUES:
            schema = {keyword: value}
            assert checker(draft).is_valid(schema) == theirs.is_valid(schema), schema


@pytest.mark.parametrize("name", DRAFTS)
def test_schemas_in_schemas(name: str) -> None:
    draw, draft = random.Random(5), DRAFTS[name]  # noqa: S311 - seeded, not secret
    theirs: Any = draft(draft.META_SCHEMA)

    def drawn(depth: int) -> Any:
        if not depth or draw.random() < 0.2:
            return draw.choice(VALUES)
        inner = {draw.choice(KEYWORDS): drawn(depth - 1) for _ in range(draw.randint(1, 3))}
        return draw.choice((inner, inner, [inner], {"a": inner}))

    for _ in range(500):
        schema = drawn(4)
        assert checker(draft).is_valid(schema) == theirs.is_valid(schema), schema
