"""What a schema says of one value by itself: what a grammar holds of it, what is checked later, what is annotation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dualtune_edge.toolkit.ecma import conditions

FORMATS: Final = {
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
}  # fmt: skip
_CHECKED: Final = {
    "contains", "dependentRequired", "dependentSchemas", "else", "if", "maxContains", "minContains", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
}  # fmt: skip
_HELD: Final = {
    "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "format",
    "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum",
    "multipleOf", "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "required", "type",
}  # fmt: skip
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LENGTHS: Final = ("minLength", "maxLength", "minItems", "maxItems")
_EXACT: Final = 2**53  # beyond it a float, in which bounds are compared, skips integers
_LONGEST: Final = 65_536  # characters or items: no arguments are as long


@dataclass(frozen=True)
class Held:
    """A part's keywords that a grammar holds, and the others, in words."""

    words: dict[str, Any]
    left: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def held(words: dict[str, Any], place: str) -> Held:
    """Divide the keywords of one schema."""
    kept = {key: value for key, value in words.items() if key in _HELD}
    left = [key for key, value in words.items() if key in _CHECKED and _says_something(key, value, words)]
    ignored = []
    if isinstance(kept.get("format"), str) and kept["format"] not in FORMATS:
        ignored.append(f"the format {kept.pop('format')!r} of {quoted(place)}")
    for key in _unheld(kept):
        del kept[key]
        left.append(key)
    unheld = [f"`{key}` of {quoted(place)}" for key in left]
    if "pattern" in kept:
        pattern = conditions(kept["pattern"])
        kept["pattern"] = pattern.core
        unheld += [f"look-around in the `pattern` of {quoted(place)}"] if pattern.looks_around else []
    return Held(kept, tuple(unheld), tuple(ignored))


def quoted(place: str) -> str:
    """A place in the arguments, as messages name it."""
    return repr(place) if place else "the arguments"


def _unheld(words: dict[str, Any]) -> Iterator[str]:
    """Keywords whose value is more than the grammar takes."""
    yield from (key for key in _BOUNDS if key in words and abs(words[key]) > _EXACT)
    yield from (key for key in _LENGTHS if words.get(key, 0) > _LONGEST)


def _says_something(key: str, value: Any, words: dict[str, Any]) -> bool:
    if key in ("then", "else"):
        return "if" in words
    return value is not False if key == "uniqueItems" else key != "if" or bool({"then", "else"} & words.keys())
