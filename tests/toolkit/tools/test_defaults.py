from typing import Any

import pytest

from dualtune_edge.toolkit.tools.defaults import default_texts, leads_to

TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "default": {"whole": "w", "number": 1},
    "properties": {
        "path": {**TEXT, "default": "."},
        "whole": TEXT,
        "number": {"default": 2},
        "either": {"anyOf": [{**TEXT, "default": "a"}, {"type": "null"}], "default": None},
        "paths": {"type": "array", "items": {**TEXT, "default": "i"}, "default": ["x", 1, "y"]},
        "node": {"$ref": "#/$defs/node"},
    },
    "$defs": {
        "node": {
            "type": "object",
            "default": {"name": "n"},
            "properties": {"name": TEXT, "next": {"$ref": "#/$defs/node"}},
        }
    },
}


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("path", {"."}),
        ("whole", {"w"}),
        ("number", set()),
        ("either", {"a"}),
        ("paths", set()),
        ("paths[]", {"x", "y", "i"}),
        ("node.name", {"n"}),
        ("node.next.next.name", {"n"}),
        ("nowhere", set()),
    ],
)
def test_defaults_of_a_place(place: str, expected: set[str]) -> None:
    assert set(default_texts(SCHEMA, place)) == expected


def test_a_place_leads_to_what_stands_in_it() -> None:
    assert [leads_to(place, "a[].b") for place in ("", "a", "a[]", "a[].b", "a.b", "a[].b.c", "b")] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip
