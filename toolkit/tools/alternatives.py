"""Whether the alternatives of a `oneOf` exclude each other, once each of them is closed to what it does not declare."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Final

from dualtune_edge.toolkit.tools.parts import Part

_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


@dataclass(frozen=True)
class AcceptedValues:
    """What is certain of every value that an alternative accepts.

    `values` are all there are, as JSON; None: not listed. `names` are all properties that an object of it may have when
    it is closed; None: it stays open.
    """

    types: frozenset[str]
    values: frozenset[str] | None = None
    required: frozenset[str] = frozenset()
    properties: Mapping[str, AcceptedValues] = field(default_factory=dict)
    names: frozenset[str] | None = None


def may_overlap(alternatives: Sequence[AcceptedValues]) -> bool:
    """Whether a value that is written for one of them may be accepted by another, as open as that was given."""
    return not all(_excludes(one, other) for one, other in permutations(alternatives, 2))


def alternative(
    part: Part, beside: Collection[str], names: Collection[str] | None, *, depth: int = 2
) -> AcceptedValues:
    """Of one schema with all that it is composed of.

    Args:
        part: the schema.
        beside: properties that are declared further out.
        names: its own properties when it is closed; None: it stays open.
        depth: levels of properties that are looked at.

    """
    found = AcceptedValues(_TYPES)
    stack, seen = [part], set[int]()
    while stack:
        current = stack.pop()
        if id(current.node) not in seen:
            seen.add(id(current.node))
            found = _both(found, _own(current, depth))
            stack += current.beside("allOf") if "allOf" in current.words else ()
            stack += [current.target()] if "$ref" in current.words else []
    return AcceptedValues(
        found.types,
        found.values,
        found.required,
        found.properties,
        None if names is None else frozenset((*names, *beside)),
    )


def _own(part: Part, depth: int) -> AcceptedValues:
    if not isinstance(part.node, dict):
        return AcceptedValues(_TYPES if part.node else frozenset())
    words = part.words
    named = words.get("type", list(_TYPES))
    types = frozenset([named] if isinstance(named, str) else named)
    listed = words.get("enum", [words["const"]] if "const" in words else None)
    return AcceptedValues(
        types | ({"integer"} if "number" in types else frozenset()),
        None if listed is None else frozenset(map(_text, listed)),
        frozenset(words.get("required", ())),
        {name: alternative(child, (), None, depth=depth - 1) for name, child in part.below("properties")}
        if depth and "properties" in words
        else {},
    )


def _text(value: Any) -> str:
    """The same for values that JSON Schema calls equal, as 1 and 1.0."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, sort_keys=True)


def _both(one: AcceptedValues, other: AcceptedValues) -> AcceptedValues:
    values = one.values if other.values is None else other.values
    if one.values is not None and other.values is not None:
        values = one.values & other.values
    return AcceptedValues(
        one.types & other.types, values, one.required | other.required, {**other.properties, **one.properties}
    )


def _excludes(written: AcceptedValues, other: AcceptedValues) -> bool:
    """Whether no value that is written for one is accepted by the other."""
    if not written.types & other.types:
        return True
    if written.values is not None and other.values is not None and not written.values & other.values:
        return True
    if "object" not in written.types & other.types or len(written.types & other.types) > 1:
        return False
    if written.names is not None and other.required - written.names:
        return True
    return any(
        _excludes(written.properties[name], other.properties[name])
        for name in written.required | other.required
        if name in written.properties and name in other.properties
    )
