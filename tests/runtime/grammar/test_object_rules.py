import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from byte_tokenizer import CONSTRAINT, TOKENIZER
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtune_edge.runtime.grammar.grammar import Grammar, compile_grammar, impossible_properties
from dualtune_edge.runtime.grammar.object_rules import BITS, ObjectRules
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

SPACED = Frame(tokens=(), pending='": ', tail="}", item_separator=", ", key_separator=": ", ascii_only=False)
DENSE = Frame(tokens=(), pending="", tail="", item_separator=",", key_separator=":", ascii_only=True)
NODE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
    "required": ["v", "next"],
    "additionalProperties": False,
}
TEXT, NUMBER = {"type": "string"}, {"type": "number"}
CLOSED = {"additionalProperties": False}
PAIR = {"type": "object", "properties": {"x": TEXT, "y": TEXT}, **CLOSED}
# A schema, and values that it allows.
SCHEMAS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "optional before required": (
        {"properties": {"head": NUMBER, "path": TEXT}, "required": ["path"], **CLOSED},
        [{"head": 1, "path": "a"}, {"path": ""}],
    ),
    "inner objects": (
        {
            "properties": {
                "a": {"type": "object", "properties": {"x": TEXT, "y": NUMBER}, **CLOSED},
                "b": {"type": "array", "items": {"type": "object", "properties": {"x": TEXT, "y": {}}, **CLOSED}},
            },
            **CLOSED,
        },
        [{"a": {"x": "", "y": 1.5}, "b": [{"x": "", "y": [None]}, {}]}, {"b": []}, {}],
    ),
    "lists of bounded length": (
        {
            "properties": {
                "list": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"x": TEXT, "y": TEXT}, **CLOSED},
                    "minItems": 1,
                    "maxItems": 2,
                }
            },
            "required": ["list"],
            **CLOSED,
        },
        [{"list": [{"y": "", "x": ""}]}, {"list": [{}, {"x": ""}]}],
    ),
    "references": (
        {"properties": {"n": {"$ref": "#/$defs/Node"}, "t": TEXT}, **CLOSED, "$defs": {"Node": NODE}},
        [{"t": "", "n": {"v": 1, "next": {"v": 2, "next": None}}}],
    ),
    "all of": (
        {
            "allOf": [
                {"properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]},
                {"properties": {"age": {"enum": [7]}}, "required": ["age"]},
            ]
        },
        [{"city": "Rome", "age": 7}],
    ),
    "one of two is required": (
        {"properties": {"a": TEXT, "b": TEXT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}], **CLOSED},
        [{"a": "", "b": ""}, {"a": ""}, {"b": ""}],
    ),
    "alternatives that exclude each other": (
        {
            "oneOf": [
                {"properties": {"kind": {"const": "a"}, "x": TEXT}, "required": ["kind", "x"], **CLOSED},
                {"properties": {"kind": {"const": "b"}, "y": NUMBER}, "required": ["kind", "y"], **CLOSED},
            ]
        },
        [{"kind": "a", "x": ""}, {"kind": "b", "y": 1}],
    ),
    "numbers of properties": (
        {"properties": {"a": TEXT, "b": TEXT, "c": TEXT}, "required": ["a"], "minProperties": 2, **CLOSED},
        [{"a": "", "b": ""}, {"c": "", "a": ""}, {"c": "", "a": "", "b": ""}],
    ),
    "at most one property": (
        {"properties": {"a": TEXT, "b": TEXT, "c": TEXT}, "maxProperties": 1, **CLOSED},
        [{"a": ""}, {"c": ""}, {}],
    ),
    "an undeclared name is required": (
        {"properties": {"a": TEXT}, "required": ["b"], "additionalProperties": NUMBER},
        [{"a": "", "b": 1}, {"b": 2}],
    ),
    "undeclared properties": (
        {"properties": {"a": TEXT, "b": TEXT}, "required": ["a"], "additionalProperties": NUMBER},
        [{"a": "", "q": 1, "b": ""}, {"a": "", "äh": 1}],
    ),
    "names that JSON escapes": (
        {"properties": {'a"\\': TEXT, "größe": TEXT, "": TEXT, "/": TEXT, "{}": TEXT}, **CLOSED},
        [{'a"\\': "", "größe": "", "": "", "/": "", "{}": ""}],
    ),
    "all of one": (
        {"properties": {"p": {"allOf": [True, {}, TEXT]}, "t": TEXT}, **CLOSED},
        [{"t": "", "p": ""}],
    ),
    "no property at all": (
        {"properties": {"p": {**PAIR, "maxProperties": 0}, "t": TEXT}, **CLOSED},
        [{"t": "", "p": {}}],
    ),
    "an object or nothing": (
        {"properties": {"a": {"type": ["object", "null"], "properties": {"x": TEXT, "y": TEXT}, **CLOSED}}, **CLOSED},
        [{"a": None}, {"a": {"x": "", "y": ""}}],
    ),
}


def compiled(schema: dict[str, Any], frame: Any = SPACED) -> Grammar:
    return compile_grammar(Tool(name="act", parameters={"type": "object", **schema}), frame, CONSTRAINT)


def reaches(of: Grammar, value: Any) -> bool:
    """Whether the model could write this value."""
    frame = of.frame
    tokens = TOKENIZER.encode(frame.pending + frame.dumps(value) + frame.tail, add_special_tokens=False).ids
    matcher = of.matcher()
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def orders(value: Any) -> Iterator[Any]:
    """The value with the properties of its objects in every order."""
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for values in itertools.product(*(list(orders(value[name])) for name in names)):
                yield dict(zip(names, values, strict=True))
    elif isinstance(value, list):
        yield from map(list, itertools.product(*map(orders, value)))
    else:
        yield value


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("frame", [SPACED, DENSE])
def test_every_order_is_reachable(name: str, frame: Any) -> None:
    schema, values = SCHEMAS[name]
    of = compiled(schema, frame)
    assert [order for value in values for order in orders(value) if not reaches(of, order)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("all of one", {"p": 5}), ("no property at all", {"p": {"x": ""}}), ("an object or nothing", {"a": 1})],
)
def test_inside_a_property_nothing_else_is_reachable(name: str, value: Any) -> None:
    assert not reaches(compiled(SCHEMAS[name][0]), value)


leaves = st.sampled_from(["", 1, 1.5, None, "a", "b", "Rome", 7])
names = st.sampled_from(["a", "b", "c", "x", "y", "n", "t", "v", "next", "kind", "city", "age", "head", "path", "q"])
instances = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
changes = st.tuples(names, instances)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(sorted(SCHEMAS)), data=st.data())
def test_what_is_reachable_is_what_the_schema_allows(name: str, data: st.DataObject) -> None:
    """A value that is allowed, with one property taken away, added or changed."""
    schema, values = SCHEMAS[name]
    value = dict(data.draw(st.sampled_from(values)))
    if value and data.draw(st.booleans()):
        del value[data.draw(st.sampled_from(sorted(value)))]
    if data.draw(st.booleans()):
        changed, instance = data.draw(changes)
        value[changed] = instance
    order = data.draw(st.permutations(sorted(value)))
    allowed = compiled(schema).tool.reading.fault(value) is None
    assert reaches(compiled(schema), {name: value[name] for name in order}) == allowed


@pytest.mark.parametrize("name", ["optional before required", "references", "undeclared properties"])
def test_a_declared_property_comes_once(name: str) -> None:
    schema, values = SCHEMAS[name]
    of = compiled(schema)
    for key in values[0]:
        if key in schema["properties"]:
            twice = f"{of.frame.dumps(values[0])[:-1]}, {json.dumps(key)}: "
            matcher = of.matcher()
            tokens = TOKENIZER.encode(of.frame.pending + twice, add_special_tokens=False).ids
            assert matcher.try_consume_tokens(tokens) < len(tokens)


def test_an_object_of_as_many_properties_as_there_are_bits_comes_in_any_order() -> None:
    of = compiled({"properties": {f"p{n}": TEXT for n in range(BITS)}, **CLOSED})
    assert reaches(of, {f"p{n}": "" for n in reversed(range(BITS))})


def test_an_object_of_more_comes_in_the_order_of_the_schema() -> None:
    of = compiled({"properties": {f"p{n}": TEXT for n in range(BITS + 1)}, **CLOSED})
    assert reaches(of, {f"p{n}": "" for n in range(BITS + 1)})
    assert not reaches(of, {"p1": "", "p0": ""})


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {"^x": TEXT}, "properties": {"a": TEXT, "b": TEXT}, **CLOSED},
        {
            "properties": {"a": TEXT, "b": {"$ref": "#/properties/a"}, "c": {"items": {"$ref": "#/properties/b"}}},
            **CLOSED,
        },
        {"properties": {"a": TEXT, "b": TEXT}, "const": {"a": "", "b": ""}},
    ],
)
def test_what_there_are_no_rules_for_is_written_in_the_order_of_the_schema(schema: dict[str, Any]) -> None:
    assert reaches(compiled(schema), {"a": "", "b": ""})


@pytest.mark.parametrize(
    "dead",
    [False, {"enum": []}, {"type": "boolean", "enum": ["True"]}, {"minimum": 2, "maximum": 1, "type": "integer"}],
)
def test_an_optional_property_that_no_value_fits_is_left_out_and_named(dead: Any) -> None:
    schema = {"properties": {"tea": TEXT, "hot": dead, "cup": TEXT}, "required": ["tea"], **CLOSED}
    of = compiled(schema)
    assert reaches(of, {"cup": "", "tea": ""})
    assert not reaches(of, {"tea": "", "hot": True})
    assert impossible_properties(of.tool, of.frame, of.tokenizer) == ("hot",)


DEAD = {"hot": {"type": "boolean", "enum": ["True"]}}
ONE: dict[str, Any] = {"type": "object", "properties": DEAD, **CLOSED}


@pytest.mark.parametrize(
    "schema",
    [
        ONE,
        {"properties": {"cup": ONE}, **CLOSED},
        {"properties": {"cups": {"type": "array", "items": ONE}}, **CLOSED},
        {"properties": {"cup": {"anyOf": [ONE, {"type": "null"}]}}, **CLOSED},
        {"properties": {"cup": {"$ref": "#/$defs/Cup"}}, "$defs": {"Cup": ONE}},
        {"properties": {f"p{n}": TEXT for n in range(70)} | DEAD},
    ],
    ids=["alone", "in an object", "in a list", "in one of two", "by reference", "of many"],
)
def test_a_property_that_no_value_fits_is_named_wherever_it_stands(schema: dict[str, Any]) -> None:
    of = compiled(schema)
    assert impossible_properties(of.tool, of.frame, of.tokenizer) == ("hot",)


def test_no_property_is_named_that_a_value_fits() -> None:
    for schema, _ in SCHEMAS.values():
        of = compiled(schema)
        assert impossible_properties(of.tool, of.frame, of.tokenizer) == ()


def definitions(count: int, schema: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Definitions of which each refers to the next in a schema's way; the last is an object."""
    chain = {f"L{n}": schema({"$ref": f"#/$defs/L{n + 1}"}) for n in range(count)}
    return {**chain, f"L{count}": {"properties": {"a": TEXT, "b": TEXT}}}


WIDE = {f"p{n}": {"type": "object", "properties": {"a": TEXT, "b": TEXT}} for n in range(250)}
BOMBS: dict[str, dict[str, Any]] = {
    "products of references": {"$defs": definitions(12, lambda part: {"allOf": [part] * 20}), "$ref": "#/$defs/L0"},
    "a web of references": {
        "$defs": definitions(10, lambda part: {"type": "object", "properties": dict.fromkeys("abcdefgh", part)}),
        "properties": {"a": {"$ref": "#/$defs/L0"}},
    },
    "an object that is all of itself": {"properties": {"a": TEXT, "b": TEXT}, "allOf": [{"$ref": "#"}]},
    "many objects": {"properties": WIDE},
}


@pytest.mark.parametrize("name", BOMBS)
def test_rules_are_not_made_without_end(name: str) -> None:
    """They end, or are not made; whether llguidance follows the schema is another question."""
    source = ObjectRules({"type": "object", **BOMBS[name]}, SPACED, {}).source()
    assert source is None or source.count("\n") < 2_100


def test_each_definition_is_written_only_where_it_is_needed() -> None:
    """Schemas of real services have a hundred definitions, to which as many properties refer."""
    names = [f"D{number}" for number in range(40)]
    either = {name: {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]} for name in names}
    colours = {name: {"enum": [f"colour of {name}."]} for name in names}
    chained = {"L0": {"enum": ["end"]}, "L1": {"anyOf": [{"$ref": "#/$defs/L0"}, {"enum": ["beginning"]}]}}
    last = {"last": {"anyOf": [{"$ref": "#/$defs/L1"}, {"type": "null"}]}}
    of = compiled({"properties": either | last, **CLOSED, "$defs": colours | chained})
    assert all(of.source.count(f"colour of {name}.") == 1 for name in names)
    assert reaches(of, {"last": "end", "D7": None, "D3": "colour of D3."})


def test_equal_parts_are_one_rule() -> None:
    """An identity of eight properties stands ten times in a calendar's schema."""
    who = {"type": "object", "properties": {f"p{number}": TEXT for number in range(8)}, **CLOSED}
    of = compiled({"properties": {f"by{number}": who for number in range(BITS)}, **CLOSED})
    assert of.source.count("p3") == 1
    assert reaches(of, {"by9": {"p7": "", "p0": ""}, "by1": {"p3": "a"}})


# A place in the arguments for a value, and how it is written there.
FREE: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "any value": ({"x": {}}, lambda value: {"x": value}),
    "true": ({"x": True}, lambda value: {"x": value}),
    "described only": ({"x": {"description": "a"}}, lambda value: {"x": value}),
    "a list of anything": ({"x": {"type": "array"}}, lambda value: {"x": ["a", value]}),
    "a free object": ({"x": {"type": "object"}}, lambda value: {"x": {"k": value, "l": 1}}),
    "a list's first item": ({"x": {"type": "array", "prefixItems": [NUMBER]}}, lambda value: {"x": [value, "b"]}),
    "a list's further items": ({"x": {"type": "array", "prefixItems": [TEXT]}}, lambda value: {"x": ["a", value]}),
    "deep in anything": ({"x": {}}, lambda value: {"x": [{"a": [value]}]}),
    "all of one": ({"x": {"allOf": [NUMBER, {"title": "a"}]}}, lambda value: {"x": value}),
    "all of one and anything": ({"x": {"allOf": [True, NUMBER]}}, lambda value: {"x": value}),
    "of several types": ({"x": {"type": ["number", "array"]}}, lambda value: {"x": [value]}),
}


@pytest.mark.parametrize("frame", [SPACED, DENSE], ids=["spaced", "dense"])
@pytest.mark.parametrize("name", FREE)
def test_no_number_is_written_that_a_float_does_not_hold(name: str, frame: Frame) -> None:
    properties, place = FREE[name]
    of = compiled({"properties": properties}, frame)
    for value in (1, -0.5, 1.5e-07, 1e300, 10**15):
        assert reaches(of, place(value))
    text = frame.pending + frame.dumps(place(41414141)) + frame.tail
    for number in ("4e5432", "1e999", "-2E400", "1" * 400):
        tokens = TOKENIZER.encode(text.replace("41414141", number), add_special_tokens=False).ids
        assert of.matcher().try_consume_tokens(tokens) < len(tokens)


# The same where llguidance's own rules write the value.
PATTERNED: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "a number": ({"^k": NUMBER}, lambda value: {"k": value}),
    "a number or text": ({"^k": {"type": ["number", "string"]}}, lambda value: {"k1": value, "k2": "a"}),
    "a number with an annotation": ({"^k": {**NUMBER, "description": "a"}}, lambda value: {"k": value}),
    "any value": ({"^k": {}}, lambda value: {"k": [value, {"a": value}, None, "b"]}),
    "true": ({"^k": True}, lambda value: {"k": value}),
    "a list of anything": ({"^k": {"type": "array"}}, lambda value: {"k": [[value]]}),
    "one of two": ({"^k": {"anyOf": [NUMBER, {"type": "null"}]}}, lambda value: {"k": value}),
    "objects in objects": (
        {"^k": {"type": "object", "properties": {"x": NUMBER}, "required": ["x"]}},
        lambda value: {"k": {"x": value}},
    ),
    "a name that no pattern fits": ({"^k": TEXT}, lambda value: {"z": value}),
    "of many properties": ({f"^k{n}$": NUMBER for n in range(20)}, lambda value: {"k7": value}),
}


@pytest.mark.parametrize("root", [True, False], ids=["all arguments", "one of them"])
@pytest.mark.parametrize("name", PATTERNED)
def test_nor_is_one_where_names_have_patterns(name: str, root: bool) -> None:  # noqa: FBT001
    patterns, place = PATTERNED[name]
    inner = {"type": "object", "patternProperties": patterns}
    of = compiled(inner if root else {"properties": {"x": inner, "y": TEXT}})

    def wrapped(value: Any) -> Any:
        return place(value) if root else {"y": "", "x": place(value)}

    for value in (0, 1, -0.5, 10**15, 1.25):
        assert reaches(of, wrapped(value))
    text = SPACED.pending + SPACED.dumps(wrapped(41414141)) + SPACED.tail
    for number in ("4e5432", "1e999", "-2E400"):
        tokens = TOKENIZER.encode(text.replace("41414141", number), add_special_tokens=False).ids
        assert of.matcher().try_consume_tokens(tokens) < len(tokens)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('aé"\\\n{}[],: '), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{ é", max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(value=ANY, spaced=st.booleans())
def test_anything_can_be_written_where_anything_may_stand(value: Any, spaced: bool) -> None:  # noqa: FBT001
    assert reaches(compiled({"properties": {"x": {}}}, SPACED if spaced else DENSE), {"x": value})


@pytest.mark.parametrize("low", [0, 1, 2, 3])
@pytest.mark.parametrize("high", [0, 1, 2, 3, None])
@pytest.mark.parametrize("rest", [True, False, TEXT])
def test_tuples_are_as_long_as_they_may_be(low: int, high: int | None, rest: Any) -> None:
    tuples = {"type": "array", "prefixItems": [NUMBER, TEXT], "items": rest, "minItems": low}
    tuples |= {} if high is None else {"maxItems": high}
    for value in ([], [1], [1, "a"], [1, "a", "b"], [1, "a", "b", "c"], ["a"], [1, 2], [1, "a", 2]):
        schema = {"properties": {"x": tuples}}
        tool = Tool(name="act", parameters={"type": "object", **schema})
        allowed = tool.reading.fault({"x": value}) is None
        try:
            of = compiled(schema)
        except ToolsError:
            assert not allowed
            continue
        assert reaches(of, {"x": value}) == allowed
