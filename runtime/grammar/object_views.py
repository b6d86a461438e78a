"""What a schema says of an object, with `allOf`, `anyOf`, `oneOf` and `$ref` multiplied out."""

from __future__ import annotations

import itertools
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_VIEWS: Final = 64  # combinations of alternatives of one object
_PARTS: Final = 256  # schemas that one object is composed of, each counted as often as it is referred to
_DEFINITIONS: Final = ("$defs", "definitions")
_COMPOSED: Final = ("allOf", "anyOf", "oneOf")
_OBJECT: Final = frozenset({
    "$ref", "type", "properties", "required", "additionalProperties", "minProperties", "maxProperties", *_COMPOSED,
})  # fmt: skip
# llguidance leaves these to the check of the finished arguments; it refuses them unless it is lenient.
_UNHELD: Final = frozenset({
    "contains", "dependencies", "dependentRequired", "dependentSchemas", "else", "if", "maxContains", "minContains",
    "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
})  # fmt: skip
KEYWORDS: Final = _OBJECT | {
    "$dynamicRef", "$id", "$recursiveRef", "additionalItems", "const", "enum", "exclusiveMaximum", "exclusiveMinimum",
    "format", "id", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "multipleOf",
    "pattern", "patternProperties", "prefixItems",
}  # fmt: skip
"""Keywords that decide what is written. Others are annotations, or are checked afterwards."""
_COPYABLE: Final = frozenset({"type", "minLength", "maxLength"})  # keywords of a text that can be held to pieces


class NoRulesError(Exception):
    """There are no rules of ours for this part of a schema."""


@dataclass(frozen=True)
class View:
    """One alternative of an object. Of several schemas all must hold."""

    properties: dict[str, list[Any]]
    required: frozenset[str]
    extra: list[Any]  # schemas of undeclared properties
    low: int  # the fewest properties
    high: int | None  # the most

    def __and__(self, other: View) -> View:
        """Both at once: what one declares is an undeclared property of the other."""
        names = dict.fromkeys([*self.properties, *other.properties])
        return View(
            {name: [*self._schemas(name), *other._schemas(name)] for name in names},
            self.required | other.required,
            [*self.extra, *other.extra],
            max(self.low, other.low),
            min((high for high in (self.high, other.high) if high is not None), default=None),
        )

    def _schemas(self, name: str) -> list[Any]:
        return self.properties.get(name, self.extra)


_ANY: Final = View({}, frozenset(), [], 0, None)


def views(schema: Any, root: dict[str, Any]) -> list[View]:
    """The alternatives of an object under this schema.

    Args:
        schema: what must hold, if the value is an object.
        root: the schema that references are resolved in.

    Raises:
        NoRulesError: it says more than a `View` holds, or is composed of too many parts.

    """
    return _Expansion(root).views(schema)


@dataclass
class _Expansion:
    """Multiplies compositions out, for as long as `budget` lasts: a few schemas can stand for endless products."""

    root: dict[str, Any]
    budget: int = _PARTS

    def views(self, schema: Any) -> list[View]:
        self.budget -= 1
        if not isinstance(schema, dict):
            return [_ANY] if schema else []
        if schema.keys() & KEYWORDS - _OBJECT or self.budget < 0:
            raise NoRulesError
        if "object" not in types(schema):
            return []
        found = [_own(schema)]
        if "$ref" in schema:
            found = _both(found, self.views(local(self.root, schema["$ref"])))
        for part in schema.get("allOf", ()):
            found = _both(found, self.views(part))
        for name in ("anyOf", "oneOf"):
            if name in schema:
                found = _both(found, [view for branch in schema[name] for view in self.views(branch)])
        return found


def _own(schema: dict[str, Any]) -> View:
    properties = {name: [value] for name, value in schema.get("properties", {}).items()}
    required = frozenset(schema.get("required", ()))
    extra = [schema["additionalProperties"]] if "additionalProperties" in schema else []
    for name in sorted(required - properties.keys()):
        properties[name] = extra
    return View(properties, required, extra, schema.get("minProperties", 0), schema.get("maxProperties"))


def _both(ones: list[View], others: list[View]) -> list[View]:
    if len(ones) * len(others) > _VIEWS:
        raise NoRulesError
    return [one & other for one, other in itertools.product(ones, others)]


def types(schema: dict[str, Any]) -> tuple[str, ...]:
    """The types that a schema names; all where it names none."""
    names = schema.get("type", ("array", "boolean", "integer", "null", "number", "object", "string"))
    return (names,) if isinstance(names, str) else tuple(names)


def merged(schemas: Iterable[Any]) -> Any:
    """One schema in place of several that must all hold."""
    parts: list[Any] = []
    for schema in schemas:
        if schema is False:
            return False
        if schema not in (True, {}) and schema not in parts:
            parts.append(schema)
    if len(parts) > 1:
        return {"allOf": parts}
    return parts[0] if parts else True


def local(root: dict[str, Any], reference: str) -> Any:
    """The part of a schema that `#/a/b` points to.

    Raises:
        NoRulesError: the reference is of another form, or nothing is there.

    """
    if reference != "#" and not reference.startswith("#/"):
        raise NoRulesError
    found: Any = root
    for part in urllib.parse.unquote(reference).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            raise NoRulesError
    return found


def needed_definitions(schema: Any, root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The definitions that a schema refers to, by way of others too: `$defs` and `definitions` with these alone.

    Raises:
        NoRulesError: a reference is of another form, or nothing is there.

    """
    needed: dict[str, set[str]] = {}
    stack = [schema]
    while stack:
        for reference in _references(stack.pop()):
            key, name = _definition(reference, root)
            names = needed.setdefault(key, set())
            if name not in names:
                names.add(name)
                stack.append(root[key][name])
    return {
        key: {name: value for name, value in root[key].items() if name in needed[key]}
        for key in _DEFINITIONS
        if key in needed
    }


def _definition(reference: str, root: dict[str, Any]) -> tuple[str, str]:
    """Under which keyword of the root a reference finds its definition, and by what name."""
    start, key, name = [*urllib.parse.unquote(reference).split("/"), "", ""][:3]
    name = name.replace("~1", "/").replace("~0", "~")
    if start != "#" or key not in _DEFINITIONS or name not in root.get(key, {}):
        raise NoRulesError
    return key, name


def _references(schema: Any) -> Iterator[str]:
    """Every reference in a schema; those in a value that only looks like one too."""
    stack = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield from (
                value[key] for key in ("$ref", "$dynamicRef", "$recursiveRef") if isinstance(value.get(key), str)
            )
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def said(parts: Sequence[Any]) -> list[Any]:
    """Those of several schemas that say something."""
    return [part for part in parts if part is not True and (not isinstance(part, dict) or part.keys() & KEYWORDS)]


def is_free(schema: dict[str, Any]) -> bool:
    """Whether the schema lets in numbers of any size: by itself, or in an array or object that it leaves open."""
    keywords = schema.keys() & KEYWORDS
    if not keywords:
        return True
    named = types(schema) if "type" in keywords else ()
    return (
        ("number" in named and keywords == {"type"})
        or ("array" in named and "items" not in keywords)
        or ("object" in named and "additionalProperties" not in keywords)
    )


def is_copyable(schema: Any) -> bool:
    """Whether a schema is that of a text of which no more is said than its length."""
    return isinstance(schema, dict) and schema.get("type") == "string" and schema.keys() & KEYWORDS <= _COPYABLE


def has_rules(schema: Any, root: dict[str, Any]) -> bool:
    """Whether the schema has an object whose properties may come in several orders, or a value that is free."""
    stack, seen = [schema], set[str]()
    while stack:
        part = stack.pop()
        if part is True:
            return True
        if not isinstance(part, dict):
            continue
        properties, reference = part.get("properties", {}), part.get("$ref")
        closed = part.get("additionalProperties") is False
        if len(properties) > closed or "allOf" in part or is_free(part):
            return True
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            stack.append(local(root, reference))
        stack += [*properties.values(), part.get("items"), part.get("additionalProperties")]
        stack += part.get("prefixItems", ())
        stack += [branch for name in _COMPOSED for branch in part.get(name, ())]
    return False
