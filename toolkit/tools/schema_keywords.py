"""JSON Schema's keywords with patterns, for jsonschema: its own hand them to `re`, which may never come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import ValidationError

from dualtune_edge.toolkit.patterns import compile_pattern


def pattern(validator: Any, source: str, value: object, _schema: object) -> Iterator[ValidationError]:
    """`pattern`: it occurs in the text."""
    if validator.is_type(value, "string") and not compile_pattern(source).search(str(value)):
        yield ValidationError(f"{value!r} does not match {source!r}")


def pattern_properties(
    validator: Any, schemas: Mapping[str, Any], value: Any, _schema: object
) -> Iterator[ValidationError]:
    """`patternProperties`: the values under names in which a pattern occurs fit its schema."""
    if not validator.is_type(value, "object"):
        return
    for source, schema in schemas.items():
        name_pattern = compile_pattern(source)
        for name, item in value.items():
            if name_pattern.search(name):
                yield from validator.descend(item, schema, path=name, schema_path=source)


def additional_properties(
    validator: Any, rest: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """`additionalProperties`: what is neither declared nor under a pattern fits `rest`."""
    if not validator.is_type(value, "object"):
        return
    patterns = [compile_pattern(source) for source in schema.get("patternProperties", ())]
    declared = schema.get("properties", {})
    names = [name for name in value if name not in declared and not any(one.search(name) for one in patterns)]
    if validator.is_type(rest, "object"):
        for name in names:
            yield from validator.descend(value[name], rest, path=name)
    elif not rest and names:
        listed = ", ".join(map(repr, names))
        yield ValidationError(f"properties that are not declared: {listed}")


PATTERN_KEYWORDS: Final = {
    "pattern": pattern,
    "patternProperties": pattern_properties,
    "additionalProperties": additional_properties,
}
