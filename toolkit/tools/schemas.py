"""A tool's argument schema, made ready for a constraint: checked, bounded, and closed to undeclared properties.

JSON Schema leaves objects open: `{"properties": {"path": …}}` admits any other key. A model that writes a call must not
invent one, so an object that declares properties, and does not say otherwise itself, is closed here.
"""

from __future__ import annotations

from typing import Any, Final

import jsonschema

from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.schema_bounds import check_bounds

# BFCL writes Python's names for types: berkeley-function-call-leaderboard/bfcl_eval/constants/type_mappings.py
_BFCL_TYPES: Final = {"dict": "object", "float": "number", "tuple": "array", "any": None}
_ONE: Final = ("items", "contains", "additionalProperties", "not", "if", "then", "else", "propertyNames")
_MANY: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_COMPOSING: Final = ("allOf", "anyOf", "oneOf", "if", "then", "else", "$ref", "dependentSchemas", "patternProperties")
_NO_FORMATS: Final = jsonschema.FormatChecker(())  # patterns are compiled already, and not by `re`
_OPENNESS: Final = ("additionalProperties", "unevaluatedProperties")


def normalise(schema: object, where: str, *, bfcl: bool = False) -> dict[str, Any]:
    """The schema with its objects closed; with `bfcl`, Python's type names as JSON Schema's.

    Args:
        schema: what the tool list says.
        where: the name that errors give it.
        bfcl: whether the list is BFCL's.

    Raises:
        ToolsError: not a JSON Schema of an object, too large, or a reference to another document.

    """
    if not isinstance(schema, dict):
        raise _refuse(where, f"a schema that is {type(schema).__name__}", "a JSON object", "Mend the tool list.")
    check_bounds(schema, where)
    result: dict[str, Any] = _walk(schema, where, bfcl=bfcl, composed=False)
    result.setdefault("type", "object")
    if result["type"] != "object":
        raise _refuse(where, f"arguments of type {result['type']!r}", "type 'object'", "Arguments are named values.")
    result.setdefault("properties", {})
    if not result["properties"] and not any(key in result for key in (*_COMPOSING, *_OPENNESS)):
        result["additionalProperties"] = False
    dialect: Any = jsonschema.validators.validator_for(result, jsonschema.Draft202012Validator)
    try:
        dialect.check_schema(result, format_checker=_NO_FORMATS)
    except jsonschema.SchemaError as error:
        path = "/".join(map(str, error.absolute_path)) or "the schema"
        raise _refuse(where, f"{error.message} (at {path})", "a valid JSON Schema", "Mend the tool list.") from None
    return result


def _walk(schema: Any, where: str, *, bfcl: bool, composed: bool) -> Any:
    """A copy with types mapped and objects closed.

    `composed`: another schema applies to the same value, so closing this one would forbid the other's properties.
    """
    if not isinstance(schema, dict):
        return schema  # true and false are schemas
    result = dict(schema)
    _refuse_remote(result, where)
    if bfcl:
        _map_type(result)
    inner = composed or "properties" in result
    for key in _ONE:
        if key in result:
            beside = key in ("not", "if", "then", "else")
            result[key] = _walk(result[key], where, bfcl=bfcl, composed=inner if beside else False)
    for key in _MANY:
        if isinstance(result.get(key), list):
            beside = key == "allOf" or (key != "prefixItems" and inner)
            result[key] = [_walk(each, where, bfcl=bfcl, composed=beside) for each in result[key]]
    for key in _NAMED:
        if isinstance(result.get(key), dict):
            # What a definition is composed with is known only where it is referred to: it is left as it is.
            beside = key in ("$defs", "definitions", "dependentSchemas")
            result[key] = {name: _walk(each, where, bfcl=bfcl, composed=beside) for name, each in result[key].items()}
    if result.get("properties") and not composed and not any(key in result for key in (*_COMPOSING, *_OPENNESS)):
        result["additionalProperties"] = False
    return result


def _map_type(schema: dict[str, Any]) -> None:
    name = schema.get("type")
    if isinstance(name, str) and name in _BFCL_TYPES:
        mapped = _BFCL_TYPES[name]
        if mapped is None:
            del schema["type"]
        else:
            schema["type"] = mapped


def _refuse_remote(schema: dict[str, Any], where: str) -> None:
    if not isinstance(schema.get("$schema", ""), str):
        raise _refuse(where, f"$schema {schema['$schema']!r}", "a dialect's URI", "Leave it out.")
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        reference = schema.get(key, "#")
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise _refuse(
                where, f"{key} {reference!r}", "a reference within the schema (#/…)", "Write the definition out."
            )


def _refuse(where: str, found: str, expected: str, fix: str) -> ToolsError:
    return ToolsError(where, found=found, expected=expected, fix=fix)
