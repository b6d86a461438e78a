"""The dialects that tools' schemas are written in, each keyword read as JSON Schema 2020-12 has it.

Without `$schema` a keyword is read as whatever draft gives its value a meaning: `items` with a list is a tuple, a
boolean `exclusiveMinimum` is draft 4's. A keyword that holds null, as serializers of optional fields write, is absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from referencing import Specification
from referencing.jsonschema import DRAFT4, DRAFT6, DRAFT7, DRAFT201909, DRAFT202012

NEWEST: Final = "https://json-schema.org/draft/2020-12/schema"
_DRAFTS: Final = {
    "json-schema.org/draft-04/schema": (4, DRAFT4),
    "json-schema.org/draft-06/schema": (6, DRAFT6),
    "json-schema.org/draft-07/schema": (7, DRAFT7),
    "json-schema.org/draft/2019-09/schema": (2019, DRAFT201909),
    "json-schema.org/draft/2020-12/schema": (2020, DRAFT202012),
}
# BFCL's own mapping (bfcl_eval/constants/type_mappings.py of gorilla), but for `any`, which holds any value there.
_BFCL_TYPES: Final = {
    "any": None, "Any": None,
    "bool": "boolean", "Boolean": "boolean",
    "byte": "integer", "short": "integer", "long": "integer", "Bigint": "integer",
    "float": "number", "double": "number",
    "char": "string", "String": "string",
    "list": "array", "tuple": "array", "ArrayList": "array", "Array": "array", "Queue": "array", "Stack": "array",
    "Set": "array",
    "dict": "object", "HashMap": "object", "Hashtable": "object",
}  # fmt: skip
_DRAFT_7: Final = 7
_COUNTS: Final = frozenset({
    "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength", "minProperties",
})  # fmt: skip
_NULLABLE: Final = {"const", "default"}  # keywords whose value may be null


@dataclass(frozen=True)
class Dialect:
    """How a schema's keywords are read. `draft` is 0 without a `$schema` that names one."""

    draft: int
    specification: Specification[Any]
    bfcl: bool = False

    @classmethod
    def of(cls, schema: dict[str, Any]) -> Dialect:
        """That of a tool's schema. Only BFCL calls the type of the arguments `dict`."""
        name = schema.get("$schema")
        known = _DRAFTS.get(name.partition("://")[2].rstrip("#")) if isinstance(name, str) else None
        draft, specification = known or (0, DRAFT202012)
        return cls(draft, specification, bfcl=schema.get("type") == "dict")

    def read(self, schema: dict[str, Any]) -> dict[str, Any]:
        """One object of a schema in the keywords of 2020-12; the schemas in it stay as they are."""
        words = {key: _whole(key, value) for key, value in schema.items() if value is not None or key in _NULLABLE}
        if 0 < self.draft <= _DRAFT_7 and "$ref" in words:
            return {"$ref": words["$ref"]}  # what stands beside it is ignored
        for key in ("$dynamicRef", "$recursiveRef"):
            if key in words:
                words.setdefault("$ref", words.pop(key))
        self._read_items(words)
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            said = isinstance(words.get(exclusive), bool) and self.draft in (0, 4)
            if said and words.pop(exclusive) and bound in words:
                words[exclusive] = words.pop(bound)
        if 0 < self.draft <= _DRAFT_7:
            _read_dependencies(words)
        if self.bfcl:
            _read_bfcl(words)
        return words

    def _read_items(self, words: dict[str, Any]) -> None:
        """A list under `items` is 2020-12's `prefixItems`, and `additionalItems` behind it are its `items`."""
        further = words.pop("additionalItems", None)
        if self.draft == 2020:
            return
        if self.draft:
            words.pop("prefixItems", None)  # unknown to these drafts
        if isinstance(words.get("items"), list):
            if first := words.pop("items"):
                words["prefixItems"] = first
            if further is not None:
                words["items"] = further


def _whole(key: str, value: Any) -> Any:
    """A count without its fraction: to JSON Schema 10.0 is a whole number."""
    is_whole = key in _COUNTS and isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value


def _read_dependencies(words: dict[str, Any]) -> None:
    dependencies = words.pop("dependencies", {})
    if not isinstance(dependencies, dict):
        words["dependentSchemas"] = dependencies  # refused as such
        return
    names = {name: needed for name, needed in dependencies.items() if isinstance(needed, list)}
    schemas = {name: needed for name, needed in dependencies.items() if not isinstance(needed, list)}
    words |= {"dependentRequired": names} if names else {}
    words |= {"dependentSchemas": schemas} if schemas else {}


def _read_bfcl(words: dict[str, Any]) -> None:
    """BFCL's names of types; an `enum` beside a list means the list's items."""
    name = words.get("type")
    if isinstance(name, str) and name in _BFCL_TYPES:
        mapped = _BFCL_TYPES[name]
        if mapped is None:
            del words["type"]
        else:
            words["type"] = mapped
    values = words.get("enum")
    if (
        words.get("type") == "array"
        and isinstance(values, list)
        and not any(isinstance(value, list) for value in values)
    ):
        del words["enum"]
        items = words.get("items")
        words["items"] = {**items, "enum": values} if isinstance(items, dict) else {"enum": values}
