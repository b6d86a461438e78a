import contextlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dualtune_edge.runtime.decode.arguments import Arguments, shortened, write_arguments
from dualtune_edge.runtime.decode.draft_tokens import FIRST_DRAFT
from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.runtime.decode.sources import Sources, not_in_conversation
from dualtune_edge.runtime.grammar.copies import compile_copies
from dualtune_edge.runtime.grammar.grammar import Grammar, compile_grammar, open_tokenizer
from dualtune_edge.runtime.grammar.pieces import conversation
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty
from dualtune_edge.toolkit.errors import CheckpointError, EngineError, RequestError, ToolsError
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

VOCABULARY, END = 300, 257
PROMPT = (9, 9, 9)


def byte_level(*merges: tuple[str, str]) -> Tokenizer:
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    numbered = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=numbered, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


TOKENIZER = byte_level()
CONSTRAINT: LLTokenizer = open_tokenizer(TOKENIZER.to_str(), vocab_size=VOCABULARY, end_of_turn=[END])
SPACED = Frame(
    tokens=(), pending='": ', tail="}\n</tool_call>", item_separator=", ", key_separator=": ", ascii_only=False
)
DENSE = Frame(tokens=(), pending="", tail="", item_separator=",", key_separator=":", ascii_only=True)


class Wishing:
    """An engine whose model wants to write one text, and past it what a seed says."""

    vocab_size = VOCABULARY
    adapter = identity = ""
    use = switch = snapshot = restore = interrupt = resume = close = __enter__ = __exit__ = NotImplemented  # not called

    tokenizer = CONSTRAINT

    def __init__(self, wish: str = "", *, seed: int = 0, context: int = 10_000, bad: float | None = None) -> None:
        self.wish, self.seed, self.context_length, self.bad = wish.encode(), seed, context, bad
        self.tokens: tuple[int, ...] = PROMPT
        self.forwards: list[tuple[int, ...]] = []

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return self.forward_rows(tokens, [len(tokens) - 1])[0]

    def forward_rows(self, tokens: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        held = self.tokens
        self.tokens += tuple(tokens)
        self.forwards.append(tuple(tokens))
        return np.stack([self.logits((*held, *tokens[: row + 1])) for row in rows])

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        self.tokens = self.tokens[:length]

    def logits(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        logits = (
            np.random.default_rng([self.seed, len(tokens), *tokens[-4:]]).standard_normal(VOCABULARY).astype(np.float32)
        )
        written = self.tokenizer.decode_bytes(list(tokens[len(PROMPT) :]))
        if self.wish.startswith(written) and len(self.wish) > len(written):
            logits[self.tokenizer.tokenize_bytes(self.wish[len(written) : len(written) + 2])[0]] = 50
        if self.bad is not None:
            logits[5] = self.bad
        return logits


def tool(properties: dict[str, Any], **keywords: Any) -> Tool:
    return Tool(name="act", parameters={"type": "object", "properties": properties, **keywords})


def grammar(properties: dict[str, Any], frame: Frame = SPACED, **keywords: Any) -> Grammar:
    return compile_grammar(tool(properties, **keywords), frame, CONSTRAINT)


def write(of: Grammar, engine: Wishing) -> Arguments:
    frame = of.frame
    assert engine.tokens == PROMPT
    result = write_arguments(engine, [], of)  # type: ignore[arg-type]
    assert frame.dumps(result.value)
    return result


def wish(of: Grammar, value: dict[str, Any], **keywords: Any) -> Arguments:
    """What comes out if the model wants to write `value`."""
    return write(of, Wishing(of.frame.pending + of.frame.dumps(value) + of.frame.tail, **keywords))


TWO = {"path": {"type": "string"}, "depth": {"type": "integer", "minimum": 0}}
values = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=12),
        "count": st.integers(),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
        "nothing": st.none(),
        "list": st.lists(st.integers(), max_size=4),
        "inner": st.fixed_dictionaries({"a": st.text('äx"\\/\n\x00', max_size=5)}),
    },
)
EVERYTHING = {
    "text": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "flag": {"type": "boolean"},
    "nothing": {"type": "null"},
    "list": {"type": "array", "items": {"type": "integer"}},
    "inner": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
}
GRAMMARS = {frame.ascii_only: grammar(EVERYTHING, frame) for frame in (SPACED, DENSE)}


PIECES = compile_copies(
    tool({"path": {"type": "string"}, "list": {"type": "array", "items": {"type": "string"}}}, required=["path"]),
    SPACED,
    CONSTRAINT,
    [CopiedProperty(name="path", border="characters"), CopiedProperty(name="list[]")],
)


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    path=st.text('ab "\\\nä', max_size=8),
    seed=st.integers(0, 9),
)
def test_copied_texts_are_pieces_with_drafts_and_without(text: str, path: str, seed: int) -> None:
    messages = [user(text), user(f"/srv/{path}.txt")]
    assert PIECES is not None
    held = PIECES.grammar(compile_grammar(PIECES.style.tool, SPACED, CONSTRAINT), conversation(messages))
    sources = Sources.of(messages, SPACED)
    wanted = SPACED.pending + SPACED.dumps({"path": f"/srv/{path}.tx", "list": ["srv", "nowhere"]})
    written = [
        write_arguments(Wishing(wanted, seed=seed), [], held, drafter, ride=ride, sources=sources)  # type: ignore[arg-type]
        for drafter, ride in ((None, True), (None, False), (Drafter.of(sources, PIECES.style.tool), True))
    ]
    value = written[0].value
    assert all(other.value == value for other in written)
    assert written[2].drafted
    assert value["path"].startswith(f"/srv/{path}.tx")
    for piece in (value["path"], *value.get("list", ())):
        assert piece
        assert any(piece in message.content for message in messages)
    assert not_in_conversation(value, PIECES.style.tool.parameters, sources) == ()


NUMBER = grammar({"x": {"type": "number"}}, required=["x"])


@settings(max_examples=60, deadline=None)
@given(value=values, order=st.permutations(list(EVERYTHING)), frame=st.sampled_from([SPACED, DENSE]))
def test_what_the_model_wants_is_written_in_any_order(value: dict[str, Any], order: list[str], frame: Frame) -> None:
    ordered = {name: value[name] for name in order if name in value}
    written = wish(GRAMMARS[frame.ascii_only], ordered)
    assert written.value == ordered
    assert list(written.value) == list(ordered)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_model_that_wants_anything_still_writes_what_fits(seed: int) -> None:
    of = grammar({"level": {"enum": ["low", "größte", 3, None]}, "on": {"type": "boolean"}}, required=["level", "on"])
    value = write(of, Wishing(seed=seed)).value
    assert value["level"] in ["low", "größte", 3, None]
    assert value["on"] in (True, False)


def test_forced_tokens_cost_no_forward_of_their_own() -> None:
    of = grammar({"a": {"enum": ["xyz", "xyw"]}}, required=["a"])
    engine = Wishing(seed=1)
    written = write(of, engine)
    text = SPACED.pending + SPACED.dumps(written.value) + SPACED.tail
    assert written.decided == len(engine.forwards) == 1
    assert written.decided + written.forced == len(text)  # one token a byte
    assert engine.forwards[0] == tuple(TOKENIZER.encode('": {"a": "xy').ids)  # and the tail was never computed


def test_pending_tokens_ride_along() -> None:
    engine = Wishing(seed=1)
    of = grammar({"a": {"enum": ["x", "y"]}}, required=["a"])
    written = write_arguments(engine, [7, 8], of)  # type: ignore[arg-type]
    assert engine.forwards[0][:2] == (7, 8)
    assert len(engine.forwards) == written.decided == 1


@pytest.mark.slow
def test_arguments_of_too_many_tokens_are_an_error() -> None:
    counting = Wishing('": {"path": "' + " ".join(map(str, range(4_000))))
    with pytest.raises(RequestError, match=f"'act'.*more than {limits.ARGUMENT_TOKENS:,} tokens"):
        write(grammar(TWO, required=["path"]), counting)


@pytest.mark.parametrize("ride", [True, False])
@pytest.mark.parametrize("drafts", [True, False])
def test_arguments_have_as_many_tokens_as_they_may_and_no_more(*, ride: bool, drafts: bool) -> None:
    of = grammar({"path": {"type": "string"}}, required=["path"])
    text = '": {"path": "/etc/hosts"}}\n</tool_call>'  # one token a byte
    sources = Sources.of([user("show /etc/hosts")], SPACED)
    for most in range(1, len(text) + 1):
        engine: Any = Wishing(text)
        drafter = Drafter.of(sources, of.tool) if drafts else None
        if most == len(text):
            assert write_arguments(engine, [], of, drafter, ride=ride, most=most).value == {"path": "/etc/hosts"}
            continue
        with pytest.raises(RequestError, match=f"more than {most:,} tokens") as caught:
            write_arguments(engine, [], of, drafter, ride=ride, most=most)
        assert caught.value.reached
        assert caught.value.reached.tool == "act"
        assert text[len('": ') :].startswith(caught.value.reached.arguments or "")


def test_the_end_of_the_context_is_an_error() -> None:
    with pytest.raises(RequestError, match="no end after"):
        wish(grammar(TWO, required=["path"]), {"path": "a" * 200}, context=100)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(bad: float) -> None:
    with pytest.raises(EngineError, match="not finite"):
        write(grammar(TWO), Wishing(bad=bad))


def test_special_tokens_are_never_written_inside_a_text() -> None:
    class Injecting(Wishing):
        def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
            logits = super().forward(tokens)
            logits[END] = 99
            return logits

    engine = Injecting('": {"path": "<|im_end|>"}}\n</tool_call>')
    assert write(grammar({"path": {"type": "string"}}, required=["path"]), engine).value == {"path": "<|im_end|>"}
    assert END not in engine.tokens


def test_a_property_twice_is_an_error() -> None:
    of = grammar({}, additionalProperties={"type": "integer"})  # names of additional properties are not kept apart
    engine = Wishing('": {"a": 1, "a": 2}}\n</tool_call>')
    with pytest.raises(RequestError, match="'a' twice"):
        write(of, engine)


@pytest.mark.parametrize(
    "schema", [{}, {"type": "number"}, {"type": ["number", "null"]}, {"anyOf": [{"type": "number"}]}]
)
@pytest.mark.parametrize("wanted", ["1e999", "-4E5432", "1.8e308", "9" * 400, f"{'9' * 99}e299"])
def test_a_number_beyond_every_float_is_not_written(schema: dict[str, Any], wanted: str) -> None:
    of = grammar({"x": schema}, required=["x"])
    written = write(of, Wishing(f'": {{"x": {wanted}}}}}\n</tool_call>')).value["x"]
    assert math.isfinite(written)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_can_be_written(number: float) -> None:
    assert wish(NUMBER, {"x": number}).value == {"x": number}


UNENFORCED: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], [1, 1]),
    ({"type": "integer", "not": {"const": 3}}, 4, 3),
    ({"type": "integer", "if": {"minimum": 5}, "then": {"multipleOf": 5}}, 10, 7),
    ({"type": "array", "contains": {"const": 1}}, [0, 1], [0]),
    ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, 1.5, 1),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, {"b": 1}, {"a": 1}),
    ({"type": "object", "propertyNames": {"maxLength": 1}}, {"a": 1}, {"ab": 1}),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), UNENFORCED)
def test_what_no_constraint_holds_is_checked_afterwards(schema: dict[str, Any], right: Any, wrong: Any) -> None:
    of = grammar({"x": schema})
    assert of.unenforced
    assert wish(of, {"x": right}).value == {"x": right}
    with pytest.raises(RequestError, match="'act'"):
        wish(of, {"x": wrong})


@pytest.mark.parametrize("value", [0.07, 19.99, 4.35, 3, 0])
def test_multiples_are_those_of_decimals(value: float) -> None:
    of = grammar({"x": {"type": "number", "multipleOf": 0.01}})
    assert wish(of, {"x": value}).value == {"x": value}
    with pytest.raises(RequestError, match=r"0\.001 is not a multiple of 0\.01"):
        of.parse('": {"x": 0.001}}\n</tool_call>')


def test_an_unknown_format_is_an_annotation_and_told() -> None:
    of = grammar({"x": {"type": "string", "format": "path"}})
    assert of.unenforced == ()
    assert of.tool.reading.constraint.ignored == ("the format 'path' of 'x'",)
    assert wish(of, {"x": "/a"}).value == {"x": "/a"}


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"x": {"type": "string", "pattern": "^a(?=b)b"}}, "look-around"),
        ({"x": False}, "unsatisfiable"),
        ({"x": {"type": "integer", "minimum": 3, "maximum": 2}}, "unsatisfiable"),
        ({"x": {"$ref": "#/$defs/absent"}}, "leads nowhere"),
        ({"x": {"multipleOf": 1e-300}}, "too many digits"),
    ],
)
def test_a_schema_that_cannot_be_a_constraint_is_refused_by_name(properties: dict[str, Any], reason: str) -> None:
    with pytest.raises(ToolsError, match=f"'act'.*{reason}"):
        grammar(properties, required=["x"])


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        inner = {"type": "object", "properties": {"x": inner}}
    return inner


PRODUCT = [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(6)]} for i in range(8)]
# Schemas within the caps that are meant to stall the device.
BOMBS: dict[str, dict[str, Any]] = {
    "long texts": {"type": "string", "minLength": 10**6, "maxLength": 10**9},
    "long lists": {"type": "array", "items": {"type": "string"}, "minItems": 10**6, "maxItems": 10**9},
    "repeated repeats": {"type": "string", "pattern": "^(((a{1,100}){1,100}){1,100}){1,100}$"},
    "exponential automaton": {"type": "string", "pattern": "^(a|b)*a(a|b){500}$"},
    "backtracking": {"type": "string", "pattern": "^(a+)+$"},
    "many alternatives": {"anyOf": [{"type": "string"}] * 500},
    "depth": nested(28),
    "huge numbers": {"type": "number", "minimum": -1e300, "maximum": 1e-300},
    "optional": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(256)}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "product of alternatives": {"type": "object", "allOf": PRODUCT},
    "itself": {"$ref": "#"},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_followed_step_by_step(name: str) -> None:
    of = grammar({"x": BOMBS[name]}, required=["x"])
    engine = Wishing(seed=3, context=40)
    with contextlib.suppress(RequestError):  # what the seed writes may be too long
        write(of, engine)
    assert engine.forwards


@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_that_cannot_be_followed_is_refused(name: str) -> None:
    with pytest.raises(ToolsError, match="'act'"):
        grammar({"x": REFUSED[name]}, required=["x"])


@pytest.mark.parametrize(
    "text", ["not json", "{}", json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}})]
)
def test_a_tokenizer_that_llguidance_cannot_read(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_tokenizer(text, vocab_size=VOCABULARY, end_of_turn=[END])


def test_a_vocabulary_smaller_than_the_tokenizers() -> None:
    with pytest.raises(CheckpointError, match="too small"):
        open_tokenizer(TOKENIZER.to_str(), vocab_size=10, end_of_turn=[END])


def test_a_right_draft_is_as_long_as_it_may_be() -> None:
    of = grammar({"path": {"type": "string"}}, required=["path"])
    written = '": {"path": "/etc/hosts"}}\n</tool_call>'
    engine = Wishing(written)
    result = write_arguments(engine, [], of, Drafter.of(Sources.of([user("show /etc/hosts")], SPACED)))  # type: ignore[arg-type]
    assert result.value == {"path": "/etc/hosts"}
    assert len(engine.forwards[0]) == len('": {"path": "') + FIRST_DRAFT
    assert result.forwards == 2
    assert result.accepted == result.drafted
    assert result.decided == len('/etc/hosts"')


def test_a_value_is_guessed_where_its_quote_is_forced_but_not_a_token() -> None:
    """As Qwen's tokenizer has it: ` "` may be the beginning of a longer token."""
    spelt = byte_level(("Ġ", '"'), ('Ġ"', "/"))
    engine = Wishing('": {"path": "a.txt"}}\n</tool_call>')
    engine.tokenizer = open_tokenizer(spelt.to_str(), vocab_size=VOCABULARY, end_of_turn=[END + 2])
    of = compile_grammar(tool({"path": {"type": "string"}}, required=["path"]), SPACED, engine.tokenizer)
    drafter = Drafter.of(Sources.of([user("the last 7 lines of a.txt")], SPACED))
    result = write_arguments(engine, [], of, drafter)  # type: ignore[arg-type]
    assert result.value == {"path": "a.txt"}
    assert result.forwards == 1
    assert result.decided == len(['Ġ"', *"a.txt", '"'])


def test_a_wrong_draft_costs_no_forward() -> None:
    of = grammar({"path": {"type": "string"}}, required=["path"])
    wanted = '": {"path": "/etch"}}\n</tool_call>'
    plain, drafted = Wishing(wanted), Wishing(wanted)
    texts = Drafter.of(Sources.of([user("show /etc/hosts")], SPACED))
    first = write_arguments(plain, [], of)  # type: ignore[arg-type]
    second = write_arguments(drafted, [], of, texts)  # type: ignore[arg-type]
    assert first.value == second.value == {"path": "/etch"}
    assert second.accepted == len("/etc")
    assert second.forwards < first.forwards


SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string", "maxLength": 9},
    "count": {"type": "integer", "minimum": -5, "maximum": 500},
    "mode": {"enum": ["name", "names", "größe", 7, None]},
    "on": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    "inner": {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"]},
}
texts = st.lists(st.text('ab/.7 "`\\ü\n', max_size=30), max_size=3)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(SCHEMAS)), unique=True, min_size=1, max_size=3),
    optional=st.booleans(),
    frame=st.sampled_from([SPACED, DENSE]),
    wanted=st.none() | values,
    said=texts,
    seed=st.integers(0, 99),
    ride=st.booleans(),
    context=st.sampled_from([10_000, 40, 60]),
    most=st.sampled_from([8_192, 30]),
    again=st.none() | st.text('ab"\\ ', min_size=1, max_size=20),
)
def test_with_drafts_or_without_every_token_is_the_same(  # noqa: PLR0917 - hypothesis gives them by name
    names: list[str],
    optional: bool,  # noqa: FBT001
    frame: Frame,
    wanted: dict[str, Any] | None,
    said: list[str],
    seed: int,
    ride: bool,  # noqa: FBT001
    context: int,
    most: int,
    again: str | None,
) -> None:
    """Whatever the grammar, the model and the conversation: values, counts, probabilities, and errors."""
    schemas = {**{name: SCHEMAS[name] for name in names}, **({"long": {"type": "string"}} if again else {})}
    of = grammar(schemas, frame, required=[] if optional else names)
    wish = "" if wanted is None else frame.pending + frame.dumps(wanted) + frame.tail
    said = said if wanted is None else [*said, json.dumps(wanted, ensure_ascii=False)]
    if again is not None:
        wish = frame.pending + frame.dumps({"long": again * 400})
        said = [*said, again * 20]
    sources = Sources.of([user(text) for text in said], frame)
    drafter = Drafter.of(sources, of.tool)
    outcomes = []
    for drafts, riding in ((None, True), (None, False), (drafter, ride)):
        engine = Wishing(wish, seed=seed, context=context)
        try:
            result = write_arguments(engine, [7, 8], of, drafts, ride=riding, most=most, sources=sources)  # type: ignore[arg-type]
        except RequestError as error:
            outcomes.append(str(error))
            continue
        assert result.forwards == len(engine.forwards)
        assert result.accepted <= result.drafted
        if drafts is None and riding:
            assert result.forwards == result.decided
        outcomes.append(f"{result.value} {result.decided} {result.forced} {result.probability}")
    assert len(set(outcomes)) == 1


DEAD = st.sampled_from(
    [False, {"enum": []}, {"type": "boolean", "enum": ["yes"]}, {"allOf": [{"const": 1}, {"const": 2}]}]
)
ONE = st.recursive(
    st.sampled_from(
        [
            ({"const": "soft"}, "soft"),
            ({"enum": [7]}, 7),
            ({"enum": ["größe"], "type": "string"}, "größe"),
            ({"type": "null"}, None),
            ({"type": "boolean", "enum": [True]}, True),
            ({"type": "array", "items": False}, []),
            ({"type": "array", "maxItems": 0}, []),
            ({"type": "integer", "minimum": 3, "maximum": 3}, 3),
            ({"type": "string", "maxLength": 0}, ""),
        ]
    ),
    lambda inner: st.dictionaries(st.sampled_from("ab"), inner, max_size=1).map(
        lambda parts: (
            {
                "type": "object",
                "properties": {name: schema for name, (schema, _) in parts.items()},
                "required": list(parts),
                "additionalProperties": False,
            },
            {name: value for name, (_, value) in parts.items()},
        )
    ),
    max_leaves=3,
)


@settings(max_examples=60, deadline=None)
@given(
    only=st.none() | ONE,
    dead=st.lists(DEAD, max_size=2),
    frame=st.sampled_from([SPACED, DENSE]),
    ride=st.booleans(),
    drafts=st.booleans(),
)
def test_arguments_without_a_choice_run_no_model(
    only: tuple[dict[str, Any], Any] | None, dead: list[Any], frame: Frame, *, ride: bool, drafts: bool
) -> None:
    properties = {"x": only[0]} if only else {}
    properties |= {f"dead{number}": schema for number, schema in enumerate(dead)}
    of = grammar(properties, frame, required=["x"] if only else [], additionalProperties=False)
    engine = Wishing()
    drafter = Drafter.of(Sources.of([user("soft 7")], frame), of.tool) if drafts else None
    written = write_arguments(engine, [7, 8], of, drafter, ride=ride)  # type: ignore[arg-type]
    assert written.value == ({"x": only[1]} if only else {})
    assert (written.decided, written.forwards, engine.tokens) == (0, 0, PROMPT)


def test_arguments_without_a_decision_are_certain_and_drafted_by_nobody() -> None:
    result = write(grammar({"mode": {"const": "soft"}}, required=["mode"]), Wishing())
    assert (result.value, result.decided, result.drafted, result.accepted) == ({"mode": "soft"}, 0, 0, 0)
    assert result.probability == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_probability_is_the_share_among_what_the_grammar_allows(seed: int) -> None:
    engine = Wishing(seed=seed)
    result = write(grammar({"x": {"type": "boolean"}}, required=["x"]), engine)
    logits = engine.logits((*PROMPT, *engine.forwards[0])).astype(np.float64)
    yes, no = (math.exp(logits[TOKENIZER.token_to_id(letter)]) for letter in "tf")
    assert result.decided == 1
    assert result.probability == pytest.approx((yes if result.value["x"] else no) / (yes + no))


@pytest.mark.parametrize(("length", "shown"), [(160, "a" * 160), (161, f"{'a' * 80} … {'a' * 40}")])
def test_a_message_shows_both_ends_of_long_arguments(length: int, shown: str) -> None:
    assert shortened("a" * length) == shown
