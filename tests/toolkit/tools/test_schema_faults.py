from __future__ import annotations

from typing import Any

import pytest

from dualtune_edge.toolkit.tools.schema_faults import fault


@pytest.mark.parametrize(
    ("value", "schema", "message"),
    [
        ({"a": 1}, {"properties": {"a": {"type": "integer"}}}, None),
        ({"a": "x"}, {"properties": {"a": {"type": "integer"}}}, "'x' is not of type 'integer' (at $.a)"),
        (19.99, {"multipleOf": 0.01}, None),
        (19.995, {"multipleOf": 0.01}, "19.995 is not a multiple of 0.01 (at $)"),
        ("x" * 300, {"type": "integer"}, f"'{'x' * 199}… (at $)"),
    ],
)
def test_it_tells_why_and_where(value: object, schema: dict[str, Any], message: str | None) -> None:
    assert fault(value, schema) == message


@pytest.mark.parametrize("reference", ["#/$defs/none", "https://example.com/schema.json"])
def test_a_reference_that_leads_nowhere_is_a_fault_and_fetches_nothing(reference: str) -> None:
    assert (fault(1, {"$ref": reference}) or "").startswith("a reference that leads nowhere: ")
