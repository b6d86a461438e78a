# ruff: noqa: E501 - a list of schemas

from typing import Any

import pytest
from byte_tokenizer import CONSTRAINT, TOKENIZER
from llguidance import LLMatcher

from dualtune_edge.runtime.grammar.grammar import compile_grammar
from dualtune_edge.runtime.grammar.shared_texts import with_shared_texts
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

FRAME = Frame(tokens=(), pending="", tail="", item_separator=", ", key_separator=": ", ascii_only=False)
DAY = {"type": "string", "format": "date"}
COLOUR = {"type": ["string", "null"], "pattern": "^(red|blue)$"}


def test_a_text_that_stands_several_times_is_a_definition() -> None:
    schema = {"type": "object", "properties": {"a": DAY, "b": DAY, "c": COLOUR, "d": {"type": "string"}}}
    assert with_shared_texts(schema) == {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/text0"},
            "b": {"$ref": "#/$defs/text0"},
            "c": COLOUR,
            "d": {"type": "string"},
        },
        "$defs": {"text0": DAY},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": DAY, "b": {**DAY, "maxLength": 9}}},
        {"allOf": [DAY, DAY]},  # each holds for the same value: they are compiled together
        {"enum": [{"pattern": "a"}, {"pattern": "a"}]},
        {"properties": {"pattern": {"type": "string"}, "format": {"type": "string"}}},
    ],
)
def test_others_stay(schema: dict[str, Any]) -> None:
    assert with_shared_texts(schema) == schema


PLACES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "properties": ({"properties": {"a": DAY, "b": DAY}}, {"a": "2020-02-02", "b": "2020-02-03"}),
    "lists": (
        {"properties": {"a": {"type": "array", "items": DAY}, "b": {"type": "array", "prefixItems": [DAY], "items": DAY}}},
        {"a": ["2020-02-02"], "b": ["2020-02-02", "2020-02-02"]},
    ),
    "alternatives": (
        {"properties": {name: {"anyOf": [DAY, {"type": "null"}]} for name in "ab"}}, {"a": None, "b": "2020-02-02"},
    ),
    "definitions": (
        {"properties": {"a": {"$ref": "#/$defs/0"}, "b": {"$ref": "#/$defs/1"}}, "$defs": {"0": DAY, "1": {**DAY, "title": "b"}}},
        {"a": "2020-02-02", "b": "2020-02-03"},
    ),
    "undeclared properties": (
        {"properties": {"a": DAY}, "patternProperties": {"^b": DAY}, "additionalProperties": DAY}, {"a": "2020-02-02", "b": "2020-02-02"},
    ),
    "more than 64": ({"properties": {"a": DAY, "b": DAY, **{f"p{number}": DAY for number in range(70)}}}, {"a": "2020-02-02", "p9": "2020-02-02"}),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_what_may_be_written_is_the_same(place: str) -> None:
    schema, value = PLACES[place]
    grammar = compile_grammar(Tool(name="act", parameters={"type": "object", **schema}), FRAME, CONSTRAINT)
    assert _is_written(grammar.matcher(), FRAME.dumps(value))
    assert not _is_written(grammar.matcher(), FRAME.dumps(value).replace("2020-02-02", "2020-42-02"))


def _is_written(matcher: LLMatcher, text: str) -> bool:
    tokens = TOKENIZER.encode(text, add_special_tokens=False).ids
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())
