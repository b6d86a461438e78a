"""What may be written of a tool's arguments: its schema in JSON Schema 2020-12, with its objects closed.

JSON Schema leaves objects open: `{"properties": {"path": …}}` admits any other key. A model that writes a call must not
invent one, so an object that declares properties, and does not say itself whether it is open, takes no others here.
What a grammar cannot hold is left out, named in `left`, and checked when the arguments are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.ecma import conditions
from dualtune_edge.toolkit.tools.alternatives import alternative, may_overlap
from dualtune_edge.toolkit.tools.assertions import Held, held, quoted
from dualtune_edge.toolkit.tools.parts import BRANCHES, Part, SchemaReadError, in_place, root_part

_OPENING: Final = ("additionalProperties", "unevaluatedProperties")  # by these an object says whether it is open
_NAMED: Final = ("properties", "patternProperties")
_BELOW: Final = (
    "additionalProperties", "contains", "items", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_ALONE: Final = ("not", "if", "then", "else")
_DECLARING: Final = frozenset({
    *_OPENING, "$ref", "allOf", *BRANCHES, "dependentSchemas", "else", "if", "patternProperties", "then",
})  # fmt: skip
_BUDGET: Final = 4 * limits.SCHEMA_NODES  # schemas that a tool's schema may come to
_NOTHING: Final[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Constraint:
    """A schema whose references are all `#/$defs/…`.

    `left`: what of the tool's own schema it does not hold. `ignored`: what is an annotation and checked by nobody.
    """

    schema: dict[str, Any]
    left: tuple[str, ...]
    ignored: tuple[str, ...]


def constrain(schema: dict[str, Any]) -> Constraint:
    """The constraint of a tool's schema.

    Raises:
        SchemaReadError: a reference that leads nowhere, or too much.

    """
    writer = _Writer(closing=True)
    written = writer.arguments(root_part(schema))
    return Constraint(written, tuple(writer.left), tuple(writer.ignored))


def translate(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema in the keywords of JSON Schema 2020-12, as open as it is.

    Raises:
        SchemaReadError: as for `constrain`.

    """
    return _Writer(closing=False).arguments(root_part(schema))


@dataclass
class _Writer:
    """Writes one schema. A definition is written once for each way in which it is referred to."""

    closing: bool
    left: dict[str, None] = field(default_factory=dict)
    ignored: dict[str, None] = field(default_factory=dict)
    _definitions: dict[str, Any] = field(default_factory=dict)
    _names: dict[tuple[int, bool, tuple[str, ...]], str] = field(default_factory=dict)
    _budget: int = _BUDGET

    def arguments(self, root: Part) -> dict[str, Any]:
        """The whole schema, which is always an object's."""
        while set(root.words) == {"$ref"}:
            root = root.target()
        words = self.whole(root)
        if words is True:
            words = {}
        if not isinstance(words, dict):
            raise SchemaReadError("a schema that no arguments fit")
        written = {"type": "object", "properties": {}, **{key: words[key] for key in words if key != "type"}}
        if self.closing and not root.words.keys() & _DECLARING:
            written = self._closed(written, tuple(written.get("required", ())))
        return {**written, "$defs": self._definitions} if self._definitions else written

    def whole(self, part: Part, beside: tuple[str, ...] = _NOTHING) -> Any:
        """All that is said of a value; an object's `beside` are properties that are declared further out."""
        if not isinstance(part.node, dict):
            return self._closed({}, beside) if part.node and beside else part.node
        if set(part.words) == {"$ref"}:
            return self._reference(part, beside, whole=True)
        if set(part.words) == {"allOf"} and len(part.words["allOf"]) == 1:
            return self.whole(next(in_place(part)), beside)
        if not self.closing:
            return self._write(part)
        branching = [key for key in BRANCHES if key in part.words]
        if len(branching) == 1 and _may_be_closed(part):
            outer = declared(part.without(branching[0]))
            if not outer.open:
                return self._write(part, branches=_joined(beside, outer.names))
        names = _names(part, beside)
        return self._write(part) if names is None else self._closed(self._write(part), names)

    def part(self, part: Part) -> Any:
        """One of several schemas for a value: it is not closed, as that would forbid what the others declare."""
        if not isinstance(part.node, dict):
            return part.node
        return self._reference(part, _NOTHING, whole=False) if set(part.words) == {"$ref"} else self._write(part)

    def _closed(self, written: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        own = written.get("properties", {})
        further = {name: True for name in names if name not in own}
        return {**written, "properties": {**own, **further}, "additionalProperties": False}

    def _reference(self, part: Part, beside: tuple[str, ...], *, whole: bool) -> Any:
        target = part.target()
        if not isinstance(target.node, dict):
            return target.node
        whole = whole and self.closing
        key = (id(target.node), whole, beside)
        if key not in self._names:
            name = self._names[key] = str(len(self._names))
            self._definitions[name] = None  # its place: it may refer to itself
            self._definitions[name] = self.whole(target, beside) if whole else self.part(target)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _write(self, part: Part, branches: tuple[str, ...] | None = None) -> dict[str, Any]:
        """The schema's own words. Each of its `branches`, if these are given, is closed beside them."""
        self._budget -= 1
        if self._budget < 0:
            raise SchemaReadError(f"over {_BUDGET:,} schemas once its references are followed")
        found = held(part.words, part.place) if self.closing else Held(part.words)
        self.left |= dict.fromkeys(found.left)
        self.ignored |= dict.fromkeys(found.ignored)
        written: dict[str, Any] = {}
        for key, value in found.words.items():
            if key in _NAMED:
                spelled = self.closing and key == "patternProperties"
                written[key] = {
                    conditions(name).core if spelled else name: self.whole(child) for name, child in part.below(key)
                }
            elif key == "prefixItems":
                written[key] = [self.whole(child) for _, child in part.below(key)]
            elif key in _BELOW:
                ((_, child),) = part.below(key)
                written[key] = self.whole(child)
            elif key == "dependentSchemas":
                written[key] = dict(zip(value, map(self.part, part.beside(key)), strict=True))
            elif key in ("allOf", *BRANCHES):
                closed = key in BRANCHES and branches is not None
                written[key] = [
                    self.whole(child, branches or _NOTHING) if closed else self.part(child)
                    for child in part.beside(key)
                ]
            elif key in _ALONE:
                (child,) = part.beside(key)
                written[key] = self.part(child)
            elif key == "$ref":
                reference = self._reference(part, _NOTHING, whole=False)
                written |= reference if isinstance(reference, dict) else {"allOf": [reference]}
            else:
                written[key] = value
        return self._either(part, written, branches) if self.closing and "oneOf" in written else written

    def _either(self, part: Part, written: dict[str, Any], branches: tuple[str, ...] | None) -> dict[str, Any]:
        """With `oneOf` as `anyOf`: a grammar writes one alternative at a time."""
        beside = branches or _NOTHING
        alternatives = [
            alternative(child, beside, None if branches is None else _names(child, beside))
            for child in part.beside("oneOf")
        ]
        if may_overlap(alternatives):
            self.left[f"`oneOf` of {quoted(part.place)}, whose alternatives may overlap"] = None
        any_of = {"anyOf": written.pop("oneOf")}
        return (
            {**written, "allOf": [*written.get("allOf", ()), any_of]} if "anyOf" in written else {**written, **any_of}
        )


@dataclass(frozen=True)
class Declared:
    """What a schema and those in place with it say of an object: names of properties, and whether it is open."""

    names: tuple[str, ...]
    properties: bool  # whether any has a schema
    open: bool


def declared(part: Part) -> Declared:
    """Of a schema and all that applies in place, each once."""
    names, properties, is_open = dict[str, None](), False, False
    stack, seen = [part], set[int]()
    while stack:
        current = stack.pop()
        if id(current.node) in seen:
            continue
        seen.add(id(current.node))
        words = current.words
        names |= dict.fromkeys((*words.get("properties", ()), *words.get("required", ())))
        properties = properties or bool(words.get("properties"))
        is_open = is_open or "patternProperties" in words or any(words.get(key, False) is not False for key in _OPENING)
        stack += reversed(list(in_place(current)))
    return Declared(tuple(names), properties, is_open)


def _names(part: Part, beside: tuple[str, ...]) -> tuple[str, ...] | None:
    """The properties that an object may have once it is closed; None: it is not to be closed."""
    if not isinstance(part.node, dict) or not _may_be_closed(part):
        return beside or None if part.node is True else None
    found = declared(part)
    stated = part.words.get("unevaluatedProperties") is False
    return None if found.open or not (found.properties or beside or stated) else _joined(found.names, beside)


def _may_be_closed(part: Part) -> bool:
    """Whether the value may be an object, and the schema lists neither its values nor all its properties itself."""
    words = part.words
    types = words.get("type", "object")
    listed = "enum" in words or "const" in words or words.get("additionalProperties") is False
    return "object" in ([types] if isinstance(types, str) else types) and not listed


def _joined(*names: tuple[str, ...]) -> tuple[str, ...]:
    """Each name once."""
    return tuple(dict.fromkeys(name for some in names for name in some))
