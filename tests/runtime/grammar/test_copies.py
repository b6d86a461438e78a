from typing import Any

import numpy as np
import pytest
from byte_tokenizer import CONSTRAINT, VOCABULARY
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from dualtune_edge.runtime.grammar.copies import Copies, NotHeldError, compile_copies
from dualtune_edge.runtime.grammar.grammar import Grammar, compile_grammar
from dualtune_edge.runtime.grammar.pieces import LONGEST, borders
from dualtune_edge.toolkit.bundle.manifest import Border, CopiedProperty
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

SPACED = Frame(tokens=(), pending='": ', tail="}", item_separator=", ", key_separator=": ", ascii_only=False)
DENSE = Frame(tokens=(), pending="", tail="", item_separator=",", key_separator=":", ascii_only=True)
FRAMES = pytest.mark.parametrize("frame", [SPACED, DENSE], ids=["unicode", "ascii"])
TEXT = {"type": "string"}
HOSTILE = [
    'a "quoted" word',
    r"C:\Users\ana\new\table.txt",
    r"\u0041\" }, \n",
    "line one\nline two\ttab\r\f\b",
    "\x00\x01\x1f\x7f\x80\u2028\u2029",
    "/home/müller/büro/日本語/café/cafe\u0301",
    "😀 grinning 👩‍👩‍👧 and 𝒳",
    '{"path": "x"}, [1, "y"]',
    "%regex { } /.*/ & ~ | \\",
    '"',
    "\\",
]


def arguments(schema: dict[str, Any], *names: str, border: Border = "words", frame: Frame = SPACED) -> Copies | None:
    copied = [CopiedProperty(name=name, border=border) for name in names]
    return compile_copies(tool(schema), frame, CONSTRAINT, copied)


def tool(schema: dict[str, Any]) -> Tool:
    return Tool(name="act", parameters={"type": "object", **schema})


def held(schema: dict[str, Any], *names: str, texts: list[str], border: Border = "words", frame: Frame) -> Grammar:
    copies = arguments(schema, *names, border=border, frame=frame)
    assert copies is not None
    assert {copied.name for copied in copies.properties} == set(names)
    return copies.grammar(compile_grammar(tool(schema), frame, CONSTRAINT), texts)


def takes(grammar: Grammar, value: dict[str, Any]) -> bool:
    frame, matcher = grammar.frame, grammar.matcher()
    tokens = CONSTRAINT.tokenize_bytes((frame.pending + frame.dumps(value) + frame.tail).encode())
    return bool(matcher.consume_tokens(tokens)) and bool(matcher.is_accepting())


def written_at_random(grammar: Grammar, seed: int) -> Any:
    """What random logits write."""
    random, matcher, tokens = np.random.default_rng(seed), grammar.matcher(), list[int]()
    while not matcher.is_accepting():
        forced = matcher.compute_ff_tokens()
        grammar.consume(matcher, forced)
        tokens += forced
        if matcher.is_accepting():
            break
        token = int(random.choice(allowed(matcher)))
        grammar.consume(matcher, [token])
        tokens.append(token)
    return grammar.parse(CONSTRAINT.decode_bytes(tokens).decode())


def allowed(matcher: LLMatcher) -> Any:
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(bits, count=VOCABULARY, bitorder="little"))


texts_of_any_kind = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)),
    min_size=1,
    max_size=4,
)
BOTH = {
    "properties": {
        "path": {"type": "string", "default": "."},
        "kind": {"anyOf": [{"enum": ["local", "both"]}, TEXT, {"type": "null"}]},
        "list": {"type": "array", "items": {"type": "object", "properties": {"old": TEXT}, "required": ["old"]}},
        "flag": {"type": "boolean"},
    },
    "required": ["path", "kind", "list"],
}


@FRAMES
@settings(max_examples=40, deadline=None)
@given(texts=texts_of_any_kind, border=st.sampled_from(["words", "characters"]), seed=st.integers(0, 2**32))
def test_whatever_the_logits_a_copied_value_is_a_piece(
    frame: Frame, texts: list[str], border: Border, seed: int
) -> None:
    grammar = held(BOTH, "path", "kind", "list[].old", texts=texts, border=border, frame=frame)
    value = written_at_random(grammar, seed)
    copied = [value["path"]] if value["path"] != "." else []
    copied += [value["kind"]] if value["kind"] not in {None, "local", "both"} else []
    copied += [item["old"] for item in value["list"]]
    for text in copied:
        assert text
        assert any(text in source for source in texts)


@FRAMES
@settings(max_examples=60, deadline=None)
@given(texts=texts_of_any_kind, border=st.sampled_from(["words", "characters"]), data=st.data())
def test_every_piece_can_be_written(frame: Frame, texts: list[str], border: Border, data: st.DataObject) -> None:
    grammar = held({"properties": {"path": TEXT}}, "path", texts=texts, border=border, frame=frame)
    text = data.draw(st.sampled_from(texts))
    places = borders(text, border)
    start, end = sorted(data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2, unique=True)))
    assert takes(grammar, {"path": text[start:end]})


@FRAMES
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_copied_whole_and_never_past_its_end(frame: Frame, text: str) -> None:
    grammar = held({"properties": {"path": TEXT}}, "path", texts=[text, "behind"], frame=frame)
    assert takes(grammar, {"path": text})
    assert takes(grammar, {"path": "behind"})
    for other in (f"{text}behind", f"{text}\x00behind", f"{text} ", f"{text}{text}", ""):
        assert not takes(grammar, {"path": other})


@FRAMES
@pytest.mark.parametrize(
    ("value", "border", "right"),
    [
        ("/srv/büro/a_1.txt", "words", True),
        ("büro", "words", True),
        ("bür", "words", False),
        ("bür", "characters", True),
        ("a_1", "words", True),
        ("1.txt", "words", False),
        ("a_1.txt, then", "words", True),
        ("日", "words", True),
        ("cafe", "words", False),  # its accent is a character of its own
        ("café", "words", True),
        ("nothing of it", "characters", False),
    ],
)
def test_a_piece_ends_where_the_border_says(value: str, border: Border, frame: Frame, *, right: bool) -> None:
    texts = ["show /srv/büro/a_1.txt, then 日本を, café"]
    grammar = held({"properties": {"path": TEXT}}, "path", texts=texts, border=border, frame=frame)
    assert takes(grammar, {"path": value}) == right


def test_the_start_of_an_escape_is_no_border() -> None:
    grammar = held({"properties": {"path": TEXT}}, "path", texts=['a\nb"c'], border="characters", frame=SPACED)
    assert takes(grammar, {"path": "\nb"})
    assert not takes(grammar, {"path": "nb"})
    matcher = grammar.matcher()
    assert matcher.consume_tokens(CONSTRAINT.tokenize_bytes(b'": {"path": "a\\'))
    assert bytes(allowed(matcher).tolist()) == bytes(CONSTRAINT.tokenize_bytes(b"n"))


def test_places_in_lists_objects_and_references() -> None:
    node = {
        "type": "object",
        "properties": {"name": TEXT, "next": {"$ref": "#/$defs/node"}},
        "additionalProperties": False,
    }
    schema = {
        "properties": {
            "paths": {"type": "array", "items": TEXT, "minItems": 1},
            "edits": {"type": "array", "items": {"type": "object", "properties": {"old": TEXT, "new": TEXT}}},
            "node": {"$ref": "#/$defs/node"},
        },
        "$defs": {"node": node},
    }
    grammar = held(schema, "paths[]", "edits[].old", "node.next.name", texts=["a b"], frame=SPACED)
    assert takes(grammar, {"paths": ["b", "a b"], "edits": [{"new": "free", "old": "a"}]})
    assert not takes(grammar, {"paths": ["b", "c"]})
    assert not takes(grammar, {"edits": [{"new": "free", "old": "free"}]})
    assert takes(grammar, {"node": {"name": "free", "next": {"next": {"name": "free"}, "name": "b"}}})
    assert not takes(grammar, {"node": {"next": {"name": "free"}}})


def test_properties_still_come_in_any_order_each_once() -> None:
    schema = {"properties": {"path": TEXT, "head": {"type": "integer"}}, "required": ["path"]}
    grammar = held(schema, "path", texts=["a"], frame=SPACED)
    assert takes(grammar, {"head": 1, "path": "a"})
    assert takes(grammar, {"path": "a", "head": 1})
    assert not takes(grammar, {"head": 1})


def test_lengths_are_those_of_the_value_not_of_its_escapes() -> None:
    schema = {"properties": {"path": {"type": "string", "minLength": 2, "maxLength": 3}}}
    for frame in (SPACED, DENSE):
        grammar = held(schema, "path", texts=['😀😀😀"ab\n'], border="characters", frame=frame)
        assert [takes(grammar, {"path": "😀" * count}) for count in (1, 2, 3)] == [False, True, True]
        assert takes(grammar, {"path": '"ab'})
        assert not takes(grammar, {"path": '😀"ab'})


def test_defaults_stay_allowed_where_they_fit() -> None:
    text = {"type": "string", "maxLength": 4}
    schema = {
        "properties": {
            "path": {**text, "default": "."},
            "long": {**text, "default": "too long"},
            "list": {"type": "array", "items": text, "default": ["x", 1]},
        }
    }
    grammar = held(schema, "path", "long", "list[]", texts=["a"], frame=SPACED)
    assert takes(grammar, {"path": ".", "list": ["x", "a"]})
    assert not takes(grammar, {"long": "too long"})
    assert not takes(grammar, {"long": "."})


@pytest.mark.parametrize(
    "value",
    [
        {"type": "string", "pattern": "^h"},
        {"type": "string", "format": "uuid"},
        {"enum": ["a", "b"]},
        {"const": "a"},
        {"type": "integer"},
        {},
        True,
    ],
)
def test_a_value_of_which_more_is_said_is_left_to_its_schema(value: Any) -> None:
    assert arguments({"properties": {"path": value}}, "path") is None
    copies = arguments({"properties": {"path": value, "other": TEXT}}, "path", "other", "nowhere")
    assert copies is not None
    assert [copied.name for copied in copies.properties] == ["other"]


def test_too_many_properties_are_left_to_the_schema() -> None:
    assert arguments({"properties": {f"p{number}": TEXT for number in range(65)}}, "p1") is None


def test_an_empty_conversation_leaves_the_plain_grammar() -> None:
    schema = {"properties": {"path": TEXT}}
    plain = compile_grammar(tool(schema), SPACED, CONSTRAINT)
    copies = arguments(schema, "path")
    assert copies is not None
    assert copies.grammar(plain, ()) is plain


@FRAMES
def test_a_conversation_is_held_up_to_its_limit(frame: Frame) -> None:
    schema = {"properties": {"path": TEXT}}
    plain, copies = compile_grammar(tool(schema), frame, CONSTRAINT), arguments(schema, "path", frame=frame)
    assert copies is not None
    text = "a" * (LONGEST - 2) + "\n"  # an escape of two characters
    assert takes(copies.grammar(plain, [text]), {"path": "\n"})
    with pytest.raises(NotHeldError, match=f"{LONGEST + 1:,} characters"):
        copies.grammar(plain, [f"{text}b"])


def test_what_is_not_copied_is_written_as_before() -> None:
    schema = {"properties": {"path": TEXT, "body": {"type": "string", "pattern": "^b"}}, "required": ["body"]}
    grammar = held(schema, "path", texts=["a"], frame=SPACED)
    assert takes(grammar, {"body": "bcd"})
    assert not takes(grammar, {"body": "cd"})
    assert "substring" not in compile_grammar(tool(schema), SPACED, CONSTRAINT).source
