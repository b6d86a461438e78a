"""The texts that a tool's schema gives as the default of a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dualtune_edge.toolkit.tools.parts import Part, in_place, root_part


def default_texts(schema: dict[str, Any], place: str) -> tuple[str, ...]:
    """The defaults of the value at a place, such as `path` or `edits[].oldText`, that are texts.

    A default of what the value stands in counts as well: of `paths`, a list, for `paths[]`.

    Raises:
        SchemaReadError: a reference that leads nowhere.

    """
    texts: dict[str, None] = {}
    stack, seen = [(root_part(schema), ())], set[tuple[int, str]]()
    while stack:
        part, given = stack.pop()
        if (id(part.node), part.place) in seen:
            continue
        seen.add((id(part.node), part.place))
        values = (*given, *_default(part))
        if part.place == place:
            texts |= dict.fromkeys(value for value in values if isinstance(value, str))
        else:
            stack += [(child, _inside(values, key)) for key, child in _below(part, place)]
        stack += [(other, values) for other in in_place(part)]
    return tuple(texts)


def leads_to(place: str, target: str) -> bool:
    """Whether the value at `target` is the one at `place`, or stands in it."""
    return not place or place == target or target.startswith((f"{place}.", f"{place}[]"))


def _default(part: Part) -> tuple[Any, ...]:
    return (part.node["default"],) if isinstance(part.node, dict) and "default" in part.node else ()


def _below(part: Part, place: str) -> Iterator[tuple[str, Part]]:
    """Properties and items on the way to the place; items have no name."""
    for keyword in ("properties", "items"):
        if keyword in part.words:
            yield from ((key, child) for key, child in part.below(keyword) if leads_to(child.place, place))


def _inside(values: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if key:
        return tuple(value[key] for value in values if isinstance(value, dict) and key in value)
    return tuple(item for value in values if isinstance(value, list) for item in value)
