"""A schema that was read says why a call cannot have some arguments."""

from __future__ import annotations

from dualtune_edge.toolkit.tools.schemas import read_schema

READ = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def test_arguments_fit_the_schema_and_hold_what_it_declares() -> None:
    reading = read_schema(READ, "test")
    assert reading.fault({"path": "a"}) is None
    assert reading.fault({"path": 1}) == "1 is not of type 'string' (at $.path)"
    assert reading.fault({"path": "a", "mode": "r"}) == "properties that are not declared: 'mode' (at $)"
    assert "required" in (reading.fault({}) or "")


def test_a_schema_that_is_one_is_judged_as_it_was_given() -> None:
    assert read_schema(READ, "test").schema == READ
