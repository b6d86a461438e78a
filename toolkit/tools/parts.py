"""Parts of a schema: what each says, where its references lead, and which value of the arguments it is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from referencing import Registry, Resource
from referencing._core import Resolver
from referencing.exceptions import Unresolvable

from dualtune_edge.toolkit.tools.dialects import Dialect

BRANCHES: Final = ("anyOf", "oneOf")
_IN_PLACE: Final = ("allOf", *BRANCHES)
_CONDITIONS: Final = ("if", "then", "else")
_ANNOTATIONS: Final = frozenset({
    "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "$schema", "$vocabulary", "contentEncoding",
    "contentMediaType", "contentSchema", "default", "definitions", "deprecated", "description", "examples", "id",
    "readOnly", "title", "writeOnly",
})  # fmt: skip
# What a keyword's value must be for the schema to be walked; what else it must be, its draft says.
_FORMS: Final[dict[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "dependentRequired"), dict),
    **dict.fromkeys(("allOf", *BRANCHES, "prefixItems", "required", "enum"), list),
    **dict.fromkeys(("$ref", "pattern", "format"), str),
    "type": (str, list),
}


class SchemaReadError(ValueError):
    """What is wrong with a schema; the caller turns it into its own `EdgeError`."""


@dataclass(frozen=True)
class Part:
    """`words`: its keywords as 2020-12 has them, without annotations. `place` leads to the value: `filter.tags[]`."""

    node: Any
    words: dict[str, Any]
    place: str
    dialect: Dialect
    resolver: Resolver[Any]

    def target(self) -> Part:
        """Where its `$ref` leads.

        Raises:
            SchemaReadError: nowhere.

        """
        reference = self.words["$ref"]
        try:
            found = self.resolver.lookup(reference)
        except Unresolvable:
            where = "nowhere" if str(reference).startswith("#") else "to another document"
            raise SchemaReadError(f"the reference {reference!r}, which leads {where}") from None
        return _part(found.contents, self.place, self.dialect, found.resolver)

    def without(self, keyword: str) -> Part:
        """The same without one of its keywords."""
        return replace(self, words={key: value for key, value in self.words.items() if key != keyword})

    def beside(self, keyword: str) -> Iterator[Part]:
        """The schemas that a keyword (`allOf`, `if`, `dependentSchemas`, …) holds for the same value."""
        value = self.words[keyword]
        nodes = value.values() if isinstance(value, dict) and keyword == "dependentSchemas" else value
        for node in nodes if keyword in (*_IN_PLACE, "dependentSchemas") else [value]:
            yield self._child(node, self.place)

    def below(self, keyword: str) -> Iterator[tuple[str, Part]]:
        """The schemas that a keyword holds for values inside of this one, with their names or numbers."""
        value = self.words[keyword]
        if keyword in ("properties", "patternProperties"):
            for name, node in value.items():
                yield name, self._child(node, f"{self.place}.{name}" if self.place else name)
        elif keyword == "prefixItems":
            for number, node in enumerate(value):
                yield str(number), self._child(node, f"{self.place}[{number}]")
        else:
            yield (
                "",
                self._child(
                    value, f"{self.place}[]" if "tems" in keyword or keyword == "contains" else f"{self.place}.*"
                ),
            )

    def _child(self, node: Any, place: str) -> Part:
        resolver = self.resolver
        if isinstance(node, dict):
            resolver = resolver.in_subresource(self.dialect.specification.create_resource(node))
        return _part(node, place, self.dialect, resolver)


def root_part(schema: dict[str, Any]) -> Part:
    """The whole schema. Nothing is fetched: its references lead into itself."""
    dialect = Dialect.of(schema)
    resource: Resource[Any] = dialect.specification.create_resource(schema)
    registry: Registry[Any] = Registry()
    return _part(schema, "", dialect, registry.resolver_with_root(resource))


def in_place(part: Part) -> Iterator[Part]:
    """The schemas that apply to the same value, if this one does; `not` is none of them."""
    for keyword in (*_IN_PLACE, *_CONDITIONS, "dependentSchemas"):
        if keyword in part.words:
            yield from part.beside(keyword)
    if "$ref" in part.words:
        yield part.target()


def _part(node: Any, place: str, dialect: Dialect, resolver: Resolver[Any]) -> Part:
    words = dialect.read(node) if isinstance(node, dict) else {}
    for key, value in words.items():
        if key in _FORMS and not isinstance(value, _FORMS[key]):
            raise SchemaReadError(f"`{key}` that is {type(value).__name__}, of {place or 'the arguments'}")
    return Part(node, {key: words[key] for key in words if key not in _ANNOTATIONS}, place, dialect, resolver)
