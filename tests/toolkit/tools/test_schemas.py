import jsonschema
import pytest

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.schemas import normalise


def accepts(schema: object, value: object) -> bool:
    return bool(jsonschema.Draft202012Validator(normalise(schema, "test")).is_valid(value))


def test_declared_objects_are_closed_at_every_depth() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "integer"}}}
    schema = {"properties": {"a": inner, "many": {"type": "array", "items": inner}}}
    assert accepts(schema, {"a": {"b": 1}, "many": [{"b": 2}]})
    assert not accepts(schema, {"x": 1})
    assert not accepts(schema, {"a": {"x": 1}})
    assert not accepts(schema, {"many": [{"x": 1}]})


def test_free_objects_stay_open() -> None:
    assert accepts({"properties": {"env": {"type": "object"}}}, {"env": {"HOME": "/"}})
    assert accepts({"properties": {"a": {}}, "additionalProperties": True}, {"x": 1})
    assert accepts({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, {"x": 1})


def test_composed_objects_keep_what_the_other_schema_declares() -> None:
    one, two = ({"type": "object", "properties": {name: {"type": "integer"}}} for name in "ab")
    assert accepts({"properties": {"o": {"allOf": [one, two]}}}, {"o": {"a": 1, "b": 2}})
    assert accepts({"properties": {"a": {}}, "anyOf": [two, {"required": ["a"]}]}, {"a": 1, "b": 2})
    reference = {"properties": {"o": {"$ref": "#/$defs/one", "properties": {"b": {}}}}, "$defs": {"one": one}}
    assert accepts(reference, {"o": {"a": 1, "b": 2}})


def test_alternatives_are_closed_each_on_its_own() -> None:
    one, two = ({"type": "object", "properties": {name: {"type": "integer"}}} for name in "ab")
    schema = {"properties": {"o": {"anyOf": [one, two]}}}
    assert accepts(schema, {"o": {"a": 1}})
    assert not accepts(schema, {"o": {"a": 1, "b": 2}})


def test_the_source_is_left_as_it_was() -> None:
    schema = {"type": "dict", "properties": {"a": {"type": "any"}}}
    normalise(schema, "test", bfcl=True)
    assert schema == {"type": "dict", "properties": {"a": {"type": "any"}}}


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"properties": {"a": {"enum": list(range(limits.SCHEMA_NODES))}}}, "values"),
        ({"properties": {f"p{n}": True for n in range(limits.SCHEMA_PROPERTIES + 1)}}, "properties in one object"),
    ],
)
def test_a_schema_that_would_stall_the_device_is_refused(schema: object, complaint: str) -> None:
    with pytest.raises(ToolsError, match=complaint):
        normalise(schema, "test")
