"""Numbers that a float holds: their expression, and those in parts of a schema that llguidance writes by itself.

It writes a number without bounds as JSON has it, up to `4e5432`, and one with a bound without an exponent. So a number
without bounds is written here as one of two: at least zero, or below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dualtune_edge.runtime.grammar.object_views import KEYWORDS, types

_NAME: Final = "anything"
_ANYTHING: Final = {"$ref": f"#/$defs/{_NAME}"}
_BOUNDS: Final = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_SIGNS: Final = ({"minimum": 0}, {"exclusiveMaximum": 0})
_CLOSED: Final = {"$ref", "allOf", "const", "enum"}  # schemas that say more than their own types

# JSON's own go on to 1e9999. At most: 300 digits, or 1.79e308 in Python's spelling.
_LARGE: Final = r"[0-9](\.[0-9]+)?[eE]\+?([0-9]{1,2}|[12][0-9]{2}|30[0-7])"
_LARGEST: Final = r"1(\.([0-6][0-9]*|7([0-8][0-9]*|9([0-6][0-9]*|7693134862315[0-7]?)?)?))?[eE]\+?308"
_LONG: Final = r"(0|[1-9][0-9]{0,99})(\.[0-9]+)?([eE](-[0-9]{1,3}|\+?([0-9]{1,2}|1[0-9]{2})))?"
NUMBER: Final = rf"-?([1-9][0-9]{{0,299}}(\.[0-9]+)?|{_LONG}|{_LARGE}|{_LARGEST})"
"""A regular expression of the numbers that a float holds."""


def with_finite_numbers(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose objects with `patternProperties` hold finite numbers; the same where it has none of these."""
    written = _outside(schema)
    if written == schema:
        return schema
    anything = _inside({"type": ["null", "boolean", "number", "string", "array", "object"]})
    return {**written, "$defs": {**written.get("$defs", {}), _NAME: anything}}


def _outside(schema: Any) -> Any:
    """A part whose numbers other rules write; objects with `patternProperties` in it are looked for."""
    if not isinstance(schema, dict) or schema.keys() & _CLOSED:
        return schema
    if "patternProperties" in schema:
        return _inside(schema)
    return _mapped(schema, _outside)


def _inside(schema: Any) -> Any:
    """A part that llguidance writes by itself."""
    if schema is True or (isinstance(schema, dict) and not schema.keys() & KEYWORDS):
        return _ANYTHING
    if not isinstance(schema, dict) or schema.keys() & _CLOSED:
        return schema
    named = types(schema) if "type" in schema else ()
    written = _mapped(schema, _inside)
    if "array" in named:
        written.setdefault("items", _ANYTHING)
    if "object" in named:
        written.setdefault("additionalProperties", _ANYTHING)
    if "number" not in named or schema.keys() & _BOUNDS:
        return written
    others = [name for name in named if name not in ("number", "integer")]
    numbers = [{**written, "type": "number", **sign} for sign in _SIGNS]
    return {"anyOf": [*([{**written, "type": others}] if others else []), *numbers]}


def _mapped(schema: dict[str, Any], apply: Callable[[Any], Any]) -> dict[str, Any]:
    """A copy in which every schema inside is changed."""
    written = dict(schema)
    for key in ("properties", "patternProperties"):
        if key in written:
            written[key] = {name: apply(part) for name, part in written[key].items()}
    for key in ("anyOf", "oneOf", "prefixItems"):
        if key in written:
            written[key] = [apply(part) for part in written[key]]
    for key in ("items", "additionalProperties"):
        if isinstance(written.get(key), (dict, bool)):
            written[key] = apply(written[key])
    return written
