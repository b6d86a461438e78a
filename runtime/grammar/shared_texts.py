"""Texts with a pattern or a format, each compiled once however often it stands in a schema.

llguidance compiles such a text at each of its places: 0.5 ms for `uri`, which adds up over 250 properties. A definition
it compiles once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

_KEYWORDS: Final = {"pattern", "format"}
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")
_LISTS: Final = ("prefixItems", "anyOf", "oneOf")
_ONE: Final = ("items", "additionalProperties")


def with_shared_texts(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema in which texts that stand several times are definitions; the same where it has none of these."""
    counts = Counter[str]()

    def count(text: dict[str, Any]) -> dict[str, Any]:
        counts[json.dumps(text)] += 1
        return text

    _mapped(schema, count)
    names = {text: f"text{number}" for number, (text, times) in enumerate(counts.items()) if times > 1}
    if not names:
        return schema

    def refer(text: dict[str, Any]) -> dict[str, Any]:
        name = names.get(json.dumps(text))
        return text if name is None else {"$ref": f"#/$defs/{name}"}

    written = _mapped(schema, refer)
    shared = {name: json.loads(text) for text, name in names.items()}
    return {**written, "$defs": {**written.get("$defs", {}), **shared}}


def _mapped(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy in which every schema with a pattern or a format is changed; those that apply in place stay."""
    if not isinstance(schema, dict):
        return schema
    if schema.keys() & _KEYWORDS:
        return change(schema)
    written = dict(schema)
    for key in _NAMED:
        if isinstance(written.get(key), dict):
            written[key] = {name: _mapped(part, change) for name, part in written[key].items()}
    for key in _LISTS:
        if isinstance(written.get(key), list):
            written[key] = [_mapped(part, change) for part in written[key]]
    for key in _ONE:
        if key in written:
            written[key] = _mapped(written[key], change)
    return written
