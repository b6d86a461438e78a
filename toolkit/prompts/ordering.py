"""Arguments in the order of their schema: the order in which the constraint on the device writes them."""

from __future__ import annotations

from typing import Any, Final

import jsonschema

_REFERENCES: Final = 64  # references followed for one value; a schema may refer to itself


def in_schema_order(value: Any, schema: dict[str, Any]) -> Any:
    """A copy of `value` whose objects list their declared properties first, in the schema's order.

    Undeclared properties follow in their own order. Of `anyOf` and `oneOf`, the first branch that fits decides.
    """
    return _ordered(value, schema, schema, _REFERENCES)


def _ordered(value: Any, schema: Any, root: dict[str, Any], references: int) -> Any:
    if not isinstance(schema, dict) or not isinstance(value, (dict, list)) or not references:
        return value
    if "$ref" in schema:
        value = _ordered(value, _resolve(root, schema["$ref"]), root, references - 1)
    for part in schema.get("allOf", ()):
        value = _ordered(value, part, root, references)
    for branches in (schema.get("anyOf"), schema.get("oneOf")):
        value = _ordered(value, _fitting(value, branches or (), root), root, references)
    if isinstance(value, dict):
        declared = schema.get("properties", {})
        names = [*(name for name in declared if name in value), *(name for name in value if name not in declared)]
        rest = schema.get("additionalProperties")
        return {name: _ordered(value[name], declared.get(name, rest), root, references) for name in names}
    first = schema.get("prefixItems", ())
    schemas = [*first, *[schema.get("items")] * (len(value) - len(first))]
    return [_ordered(item, each, root, references) for item, each in zip(value, schemas, strict=False)]


def _fitting(value: Any, branches: Any, root: dict[str, Any]) -> Any:
    validator = jsonschema.Draft202012Validator(root)
    return next((branch for branch in branches if validator.evolve(schema=branch).is_valid(value)), None)


def _resolve(root: dict[str, Any], reference: str) -> Any:
    """The schema that `#/a/b` points to; None if nothing is there (validation tells)."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return found
