"""Patterns in schemas: jsonschema's own answers, without its engine."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from dualtune_edge.toolkit.tools.schema_faults import fault

Schema = dict[str, Any]
SCHEMAS: dict[str, Schema] = {
    "pattern": {"pattern": "^a+$"},
    "items": {"items": {"pattern": "b"}},
    "names": {"propertyNames": {"pattern": "^[a-z]+$"}},
    "not": {"not": {"pattern": "^a"}},
    "one of": {"oneOf": [{"pattern": "^a"}, {"pattern": "a$"}]},
    "named by pattern": {"patternProperties": {"^n": {"type": "integer"}, "z$": {"type": "string"}}},
    "closed": {"properties": {"p": {}}, "patternProperties": {"^n": {}}, "additionalProperties": False},
    "the rest": {"properties": {"p": {}}, "patternProperties": {"^n": {}}, "additionalProperties": {"type": "null"}},
    "closed without patterns": {"properties": {"p": {}}, "additionalProperties": False},
    "draft 7": {"$schema": "http://json-schema.org/draft-07/schema#", "patternProperties": {"^n": {"pattern": "x"}}},
}
VALUES: tuple[Any, ...] = (
    "a", "aa", "ba", "b", 7, None, ["b"], ["ab", "a"], {}, {"p": 1}, {"n": 1}, {"n": "x"}, {"nz": "x"}, {"nz": 1},
    {"q": None}, {"q": 1}, {"p": 1, "n1": 2, "q": 3, "r": 4}, {"P": 1},
)  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_answers_are_those_of_jsonschema(name: str) -> None:
    schema = SCHEMAS[name]
    own: Any = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)
    assert [fault(value, schema) is None for value in VALUES] == [own.is_valid(value) for value in VALUES]


BOMB = "^(a+)+b$"
LONG = "a" * 5_000 + "!"
PLACES: dict[str, tuple[Schema, Any]] = {
    "pattern": ({"pattern": BOMB}, LONG),
    "not": ({"enum": [LONG], "not": {"pattern": BOMB}}, LONG),
    "names": ({"propertyNames": {"pattern": BOMB}}, {LONG: 1}),
    "no names": ({"propertyNames": {"not": {"pattern": BOMB}}}, {LONG: 1}),
    "one of": ({"oneOf": [{"pattern": BOMB}, {"type": "string"}]}, LONG),
    "named by pattern": ({"patternProperties": {BOMB: {"type": "null"}}}, {LONG: 1}),
    "closed": ({"patternProperties": {BOMB: {}}, "additionalProperties": False}, {LONG: 1}),
    "contained": ({"contains": {"pattern": BOMB}}, [LONG]),
    "a condition": ({"if": {"pattern": BOMB}, "then": False}, LONG),
    "a draft of old": ({"$schema": "http://json-schema.org/draft-04/schema#", "not": {"pattern": BOMB}}, LONG),
}
REFUSED = {"pattern", "names", "closed", "contained"}


@pytest.mark.parametrize("name", PLACES)
def test_no_pattern_takes_for_ever_wherever_it_stands(name: str) -> None:
    schema, value = PLACES[name]
    assert (fault(value, schema) is not None) == (name in REFUSED)


def test_what_is_not_declared_is_named() -> None:
    message = fault({"p": 1, "q": 2, "r": 3}, SCHEMAS["closed without patterns"])
    assert message == "properties that are not declared: 'q', 'r' (at $)"


def test_a_pattern_that_cannot_be_used_is_a_fault() -> None:
    assert "unclosed group" in (fault("a", {"pattern": "("}) or "")


def test_a_schema_that_never_ends_is_a_fault() -> None:
    assert "nested too deeply" in (fault({}, {"not": {"$ref": "#"}}) or "")
