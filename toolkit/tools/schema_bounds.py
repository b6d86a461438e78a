"""What a tool's schema may cost: in values, text, patterns and numbers, and in schemas that apply to one value.

A schema comes from whoever wrote the tool. It is compiled and checked on a device, so each of its parts is bounded
before: milliseconds here are seconds there.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import NoneType
from typing import Any, Final

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT4, DRAFT202012, specification_with

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.expressions import least_length
from dualtune_edge.toolkit.tools.pattern_bounds import PatternBudget, text_cost

# Keywords under which schemas stand: one, a list of them, some by name. The first ones of each apply to the very value
# that their own schema applies to.
_SAME: Final = ("not", "if", "then", "else")
_SAME_LISTS: Final = ("allOf", "anyOf", "oneOf")
_SAME_NAMED: Final = ("dependentSchemas", "dependencies")
_ONE: Final = (
    *_SAME, "additionalItems", "additionalProperties", "contains", "contentSchema", "items", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_LISTS: Final = (*_SAME_LISTS, "items", "prefixItems")
_DEFINITIONS: Final = ("$defs", "definitions")
_NAMED: Final = (*_SAME_NAMED, "patternProperties", "properties")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMES: Final = ("$id", "$anchor", "$dynamicAnchor", *_REFERENCES)  # by which a schema is looked up
_ABOUT_PROPERTIES: Final = frozenset({"additionalProperties", "patternProperties", "properties", "required"})
_OBJECT: Final = 4  # schemas that one about properties counts as: it takes as long to compile
_ANNOTATIONS: Final = frozenset({"$comment", "default", "description", "examples", "title"})


def check_bounds(schema: dict[str, Any], where: str) -> None:
    """Refuse a schema that could stall a device.

    Args:
        schema: a tool's.
        where: the name that errors give it.

    Raises:
        ToolsError: over a cap of `limits`, or a schema that refers to itself for the same value.

    """
    _Size(where).add(schema)
    _Composition(schema, where).check()


class _Size:
    """Counts the values and characters of one schema."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._values = self._characters = 0

    def add(self, schema: object) -> None:
        """Count a schema, level by level: a deep one is no deep recursion."""
        level: list[tuple[object, bool]] = [(schema, True)]
        depth = 0
        while level:
            if depth > limits.JSON_DEPTH:
                raise self._too_much(f"nesting deeper than {limits.JSON_DEPTH}", "a flatter schema")
            level = [inner for value, counts in level for inner in self._inside(value, counts=counts)]
            depth += 1

    def _inside(self, value: Any, *, counts: bool) -> Iterator[tuple[object, bool]]:
        """What lies in a value; `counts`: whether its text goes into the constraint."""
        self._values += 1
        if self._values > limits.SCHEMA_NODES:
            raise self._too_much(f"over {limits.SCHEMA_NODES} values", "a smaller schema")
        if isinstance(value, dict):
            properties = value.get("properties")
            if isinstance(properties, dict) and len(properties) > limits.SCHEMA_PROPERTIES:
                found = f"{len(properties)} properties in one object"
                raise self._too_much(found, f"at most {limits.SCHEMA_PROPERTIES}")
            for key, item in value.items():
                self._write(str(key), counts=counts)
                if key in _ANNOTATIONS and isinstance(item, str):
                    self._write(item, counts=False)  # no value: it is not compiled
                else:
                    yield item, counts and not (key in _ANNOTATIONS and not isinstance(item, dict))
        elif isinstance(value, list):
            yield from ((item, counts) for item in value)
        elif isinstance(value, str):
            self._write(value, counts=counts)
        elif isinstance(value, int) and abs(value) >= 10**limits.SCHEMA_DIGITS:
            found = f"a number of {value.bit_length() * 0.30103:.0f} digits"  # log10(2): counting them takes as long
            raise self._too_much(found, f"at most {limits.SCHEMA_DIGITS}")

    def _write(self, text: str, *, counts: bool) -> None:
        self._characters += len(text)
        if self._characters > limits.SCHEMA_CHARS:
            raise self._too_much(f"over {limits.SCHEMA_CHARS} characters", "a shorter schema")
        if counts and len(text) > limits.SCHEMA_LITERAL_CHARS:
            raise self._too_much(f"a name or value of {len(text)} characters", f"at most {limits.SCHEMA_LITERAL_CHARS}")

    def _too_much(self, found: str, expected: str) -> ToolsError:
        return _refusal(self._where, found, expected, "Split the tool, or shorten its schema.")


@dataclass(frozen=True)
class _Cost:
    """Of a value's schema, with all that apply to the same value."""

    schemas: int = 1
    ways: int = 1  # in which their alternatives can be combined
    multiple: int = 1  # the common one of their `multipleOf`
    texts: int = 0  # what their patterns and formats count as


class _Composition:
    """The schemas inside one schema, and which of them apply to one value together."""

    def __init__(self, root: dict[str, Any], where: str) -> None:
        self._root, self._where = root, where
        self._costs: dict[int, _Cost] = {}  # by the schema's id
        self._seen: set[int] = set()  # ids of those that were looked at
        self._open: set[int] = set()  # ids of those that are being counted
        self._patterns = PatternBudget(where)
        self._multiples = 0
        dialect = root.get("$schema")
        specification = specification_with(dialect if isinstance(dialect, str) else "", default=DRAFT202012)
        self._named_by = (*_NAMES, "id") if specification is DRAFT4 else _NAMES
        self._check_name(root)
        self._resolver: Any = Registry().resolver_with_root(specification.create_resource(root))

    def check(self) -> None:
        """Look at every schema once.

        Raises:
            ToolsError: one is over the caps, or refers to itself.

        """
        schemas: list[object] = [self._root]
        while schemas:
            schemas = self._walk(schemas)
        self._patterns.compile()

    def _walk(self, schemas: list[object]) -> list[object]:
        """Look at schemas and at all that they hold or refer to; the definitions that stand in these."""
        definitions: list[object] = []
        for _ in range(limits.SCHEMA_STEPS):
            level = schemas
            schemas = []
            for schema in level:
                if isinstance(schema, dict) and id(schema) not in self._seen:
                    self._seen.add(id(schema))
                    self._check_name(schema)
                    self._check_sums(schema)
                    self._cost(schema)
                    self._patterns.add(schema, self._texts_beside(schema))
                    definitions += _inner(schema, (), (), _DEFINITIONS)
                    schemas += (*_inner(schema, _ONE, _LISTS, _NAMED), *self._referred(schema))
            if not schemas:
                return definitions
        raise self._too_much(f"a chain of over {limits.SCHEMA_STEPS} schemas", "a shorter one")

    def _check_sums(self, schema: dict[str, Any]) -> None:
        """What adds up over the values of a schema: states of `multipleOf`, and text that a list must repeat."""
        self._multiples += _multiple(schema.get("multipleOf")) - 1
        if self._multiples > limits.SCHEMA_MULTIPLE:
            raise self._too_much(f"`multipleOf` by {self._multiples} in all", f"at most {limits.SCHEMA_MULTIPLE}")
        if "minItems" in schema and (least := _least_text(schema)) > limits.SCHEMA_LITERAL_CHARS:
            found = f"a list of at least {least} characters"
            raise self._too_much(found, f"at most {limits.SCHEMA_LITERAL_CHARS}")

    def _check_name(self, schema: dict[str, Any]) -> None:
        """References are looked up before the schema is checked against its draft, and some drafts leave them out."""
        for key in self._named_by:
            if not isinstance(schema.get(key, ""), (str, NoneType)):
                found = f"`{key}` that is {type(schema[key]).__name__}"
                raise _refusal(self._where, found, "a text", "Correct the tool list.")

    def _cost(self, schema: object) -> _Cost:
        if not isinstance(schema, dict):
            return _Cost()
        key = id(schema)
        if key in self._open:
            raise _refusal(
                self._where,
                "a schema that refers to itself for the same value",
                "references that lead into a value",
                "Refer to it from `properties` or `items`.",
            )
        if key not in self._costs:
            if len(self._open) >= limits.JSON_DEPTH:
                raise self._too_much(f"a chain of over {limits.JSON_DEPTH} references", "a shorter one")
            self._open.add(key)
            self._costs[key] = self._together(schema)
            self._open.remove(key)
        return self._costs[key]

    def _together(self, schema: dict[str, Any]) -> _Cost:
        """What a schema costs with those that apply to the same value."""
        if sum(1 for _ in _inner(schema, _SAME, _SAME_LISTS, _SAME_NAMED)) >= limits.SCHEMAS_TOGETHER:
            raise self._too_many()
        further = [self._cost(part) for part in _inner(schema, _SAME, (), _SAME_NAMED)]
        alternatives = [[self._cost(part) for part in _inner(schema, (), (key,), ())] for key in ("anyOf", "oneOf")]
        all_of = [self._cost(part) for part in (*_inner(schema, (), ("allOf",), ()), *self._referred(schema))]
        costs = [*further, *itertools.chain(*alternatives), *all_of]
        cost = _Cost(
            schemas=(_OBJECT if _ABOUT_PROPERTIES & schema.keys() else 1) + sum(part.schemas for part in costs),
            ways=math.prod(
                [
                    *(part.ways for part in all_of),
                    *(max(1, sum(part.ways for part in parts)) for parts in alternatives),
                ]
            ),
            multiple=math.lcm(_multiple(schema.get("multipleOf")), *(part.multiple for part in costs)),
            texts=text_cost(schema) + sum(part.texts for part in costs),
        )
        if cost.schemas > limits.SCHEMAS_TOGETHER:
            raise self._too_many()
        if cost.ways > limits.SCHEMA_WAYS:
            found = f"alternatives that combine in over {limits.SCHEMA_WAYS} ways"
            raise self._too_much(found, "fewer")
        if cost.multiple > limits.SCHEMA_MULTIPLE:
            raise self._too_much(f"`multipleOf` by {cost.multiple} in all", f"at most {limits.SCHEMA_MULTIPLE}")
        return cost

    def _texts_beside(self, schema: dict[str, Any]) -> int:
        """What patterns and formats count as that are compiled together with the schema's own ones."""
        own, keys = text_cost(schema), schema.keys() - _ANNOTATIONS
        either = own * sum(1 for _ in _inner(schema, (), ("anyOf", "oneOf"), ()))
        all_of = sum(1 for _ in _inner(schema, (), ("allOf",), ()))
        joined = either or all_of > 1 or (keys & {"$ref", "allOf"} and len(keys) > 1)
        return self._cost(schema).texts - own + either if joined else 0

    def _referred(self, schema: dict[str, Any]) -> Iterator[object]:
        """What the schema refers to; a reference that leads nowhere is a fault where a value is checked."""
        for key in _REFERENCES:
            if isinstance(reference := schema.get(key), str):
                with contextlib.suppress(Unresolvable, ValueError, LookupError, TypeError, AttributeError):
                    yield self._resolver.lookup(reference).contents

    def _too_many(self) -> ToolsError:
        return self._too_much(f"over {limits.SCHEMAS_TOGETHER} schemas for one value", "fewer alternatives")

    def _too_much(self, found: str, expected: str) -> ToolsError:
        return _refusal(self._where, found, expected, "Simplify the schema.")


def _inner(
    schema: dict[str, Any], one: tuple[str, ...], lists: tuple[str, ...], named: tuple[str, ...]
) -> Iterator[object]:
    """The schemas under some of a schema's keywords."""
    yield from (schema[key] for key in one if isinstance(schema.get(key), dict))
    for key in lists:
        yield from schema[key] if isinstance(schema.get(key), list) else ()
    for key in named:
        yield from schema[key].values() if isinstance(schema.get(key), dict) else ()


def _least_text(schema: object) -> int:
    """Characters that every value of a schema has, as far as its own constants, patterns and lists say so."""
    if not isinstance(schema, dict):
        return 0
    if "const" in schema:
        return len(str(schema["const"]))
    if isinstance(values := schema.get("enum"), list) and values:
        return min(len(str(value)) for value in values)
    least = least_length(schema["pattern"]) if isinstance(schema.get("pattern"), str) else 0
    items, count = schema.get("items"), schema.get("minItems")
    if isinstance(count, int) and isinstance(items, dict):
        least += max(count, 0) * _least_text(items)
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        names = [name for name in required if isinstance(name, str)]
        least += sum(_least_text(properties.get(name)) for name in names)
    return least


def _multiple(factor: object) -> int:
    """The digits of a `multipleOf` as a whole number: 0.25 → 25."""
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not math.isfinite(factor) or factor <= 0:
        return 1  # no schema: refused as such
    digits = Fraction(repr(factor))
    while digits.denominator > 1:
        digits *= 10
    whole = digits.numerator
    while isinstance(factor, float) and whole % 10 == 0:
        whole //= 10
    return max(whole, 1)


def _refusal(where: str, found: str, expected: str, fix: str) -> ToolsError:
    return ToolsError(where, found=found, expected=expected, fix=fix)
