"""Prompts as tokens: what is read off a few renders must hold for every conversation and every value."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import frame_of, wrapping_of
from dualtune_edge.toolkit.prompts.growing_text import GrowingTexts
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.no_tool import no_tool_entry
from dualtune_edge.toolkit.prompts.prompter import Prompter, common_prefix
from dualtune_edge.toolkit.tools.toolset import Tool

ROOT = Path(__file__).parents[3]
COMPACT = (
    "{% for t in tools %}{{ t.function.name }};{% endfor %}\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    '{% for c in m.tool_calls %}{"name":{{ c.function.name | tojson }},"arguments":'
    "{{ c.function.arguments | tojson(separators=(',', ':'), ensure_ascii=true) }}}{% endfor %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SOURCES = {
    "selection": (ROOT / "toolkit" / "templates" / "selection.jinja").read_text(encoding="utf-8"),
    "arguments": (ROOT / "toolkit" / "templates" / "arguments.jinja").read_text(encoding="utf-8"),
    "compact": COMPACT,
}
# Qwen2's way to cut text before merging.
PIECES = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LINES = ['{"name": "read", "parameters": {"path": "/a/b.txt", "head": 1}}', '":{"', '"}}', "/a\n\n", " \n", "  "]


@cache
def tokenizer(kind: str) -> Tokenizer:
    made = Tokenizer(BPE())
    made.normalizer = NFC()
    if kind == "merging":  # merges across everything
        made.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        cut = Split(Regex(PIECES), behavior="isolated")
        made.pre_tokenizer = Sequence([cut, ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind == "trimming":  # offsets without the spaces around a token
        made.post_processor = ByteLevelProcessor(trim_offsets=True)
    made.decoder = ByteLevelDecoder()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(LINES * 9, trainer)
    return made


PATHS = {"type": "object", "properties": {"path": {"type": "string"}, "head": {}, "/x": {}, "äh": {}}}
TOOLS = (Tool(name="read", parameters=PATHS), Tool(name="read_file", parameters=PATHS), no_tool_entry())


@cache
def prompter(source: str, kind: str) -> Prompter:
    return Prompter(ChatTemplate(SOURCES[source], where=f"{source}.jinja"), tokenizer(kind), TOOLS, "read")


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["\n\n", "  x", "{", '"', "\t"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
arguments = st.dictionaries(st.sampled_from(list(PATHS["properties"])) | texts, values, max_size=4)
turns = (
    st.builds(user, texts)
    | st.builds(Message, role=st.just("tool"), content=texts)
    | st.builds(call, st.just("read"), arguments)
)
conversations = st.builds(lambda first, rest: [user(first), *rest], texts, st.lists(turns, max_size=3))
EVERY = [(source, kind) for source in SOURCES for kind in ("merging", "cutting", "trimming")]


@pytest.mark.parametrize(("source", "kind"), EVERY)
@settings(max_examples=40, deadline=None)
@given(messages=conversations)
def test_every_conversation_begins_with_the_static_prefix(source: str, kind: str, messages: list[Message]) -> None:
    under_test = prompter(source, kind)
    prefix = under_test.prefix()
    assert under_test.tokens(messages)[: len(prefix)] == prefix
    assert prefix


@pytest.mark.slow
@pytest.mark.parametrize(("source", "kind"), EVERY)
@settings(max_examples=40, deadline=None)
@given(messages=conversations, tool=st.sampled_from([tool.name for tool in TOOLS]))
def test_a_completion_is_the_same_after_every_conversation(
    source: str, kind: str, messages: list[Message], tool: str
) -> None:
    under_test = prompter(source, kind)
    found = (*under_test.tokens(messages), *under_test.completion(call(tool)))
    assert found == tuple(under_test.encode(under_test.text([*messages, call(tool)], generate=False)).ids)


@pytest.mark.parametrize(("source", "kind"), EVERY)
def test_completions_are_the_same_where_the_tool_list_is_tokenized_once(source: str, kind: str) -> None:
    under_test = prompter(source, kind)
    growing = replace(under_test, texts=GrowingTexts(under_test.tokenizer))
    for answer in (call(tool.name) for tool in TOOLS):
        assert (
            growing.completion(answer)
            == under_test.completion(answer)
            == under_test.complete([user("a")], answer).tokens
        )


@pytest.mark.slow
@pytest.mark.parametrize(("source", "kind"), [(source, kind) for source, kind in EVERY if source != "selection"])
@settings(max_examples=60, deadline=None)
@given(messages=conversations, given_arguments=arguments)
def test_the_frame_and_the_arguments_make_the_whole_call(
    source: str, kind: str, messages: list[Message], given_arguments: dict[str, Any]
) -> None:
    under_test = prompter(source, kind)
    frame, wrapping = frame_of(under_test), wrapping_of(under_test)
    answer = call("read", given_arguments)
    if under_test.control_token_in([message.model_dump() for message in (*messages, answer)]):
        with pytest.raises(TemplateError, match="a token of the template's own, in a message"):
            under_test.complete(messages, answer)
        return
    completion = under_test.complete(messages, answer)
    assert completion.tokens[: len(frame.tokens)] == frame.tokens
    assert completion.text == wrapping.head + frame.dumps(given_arguments) + wrapping.tail
    spelled = under_test.tokenizer.decode(list(frame.tokens), skip_special_tokens=False)
    assert spelled + frame.pending == wrapping.head
    assert wrapping.tail.startswith(frame.tail)
    assert "<|im_end|>" not in frame.tail


@settings(deadline=None)
@given(st.permutations(["head", "path", "/x", "äh"]))
def test_past_arguments_stand_as_they_were_written(names: list[str]) -> None:
    written = {name: {"b": 1, "a": [name]} for name in names}
    text = prompter("arguments", "cutting").text([user("a"), call("read", written), user("b")], generate=True)
    assert json.dumps(written, ensure_ascii=False) in text


NAMES = ("a", "b", "c", "é", "x", "{", "}", "{}", '"', '{"c": 2.5}', "name", "arguments", "parameters", "read", "[1]")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["arguments", "compact"])
def test_no_name_of_a_tool_or_property_is_taken_for_a_probe(source: str) -> None:
    template = ChatTemplate(SOURCES[source], where=source)
    for name in NAMES:
        for properties in ({name: {}}, {key: {} for key in NAMES}):
            named = Tool(name=name, parameters={"type": "object", "properties": properties})
            under_test = Prompter(template, tokenizer("merging"), (named, *TOOLS), name)
            frame, wrapping = frame_of(under_test), wrapping_of(under_test)
            spelled = under_test.tokenizer.decode(list(frame.tokens), skip_special_tokens=False)
            assert spelled + frame.pending == wrapping.head
            text = under_test.complete([user("a")], call(name, {"z": 1})).text
            assert text == wrapping.head + frame.dumps({"z": 1}) + wrapping.tail


def each_call(written: str) -> str:
    return "{% for m in messages %}{% for c in m.tool_calls %}" + written + "{% endfor %}{% endfor %}"


ARGUMENTS = "{{ c.function.arguments | tojson }}"
ONE = "as one JSON object"
BAD = {
    "not in the prompt": ("{% if add_generation_prompt %}go:{% endif %}", "begin with"),
    "no arguments": (each_call("x"), ONE),
    "indented": (each_call("{{ c.function.arguments | tojson(indent=1) }}"), ONE),
    "twice": (each_call(ARGUMENTS + ARGUMENTS), ONE),
    "sorted": (each_call("{{ c.function.arguments | tojson(sort_keys=true) }}"), ONE),
    "no border": (
        each_call('":{{ c.function.arguments | tojson }}') + '{% if add_generation_prompt %}"{% endif %}',
        "ends at a token's border",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_template_that_gives_no_frame_is_refused(name: str) -> None:
    source, expected = BAD[name]
    bad = Prompter(ChatTemplate(source, where="bad.jinja"), tokenizer("merging"), TOOLS, "read")
    with pytest.raises(TemplateError, match=r"bad\.jinja") as error:
        frame_of(bad)
    assert expected in error.value.expected


@cache
def letters() -> Tokenizer:
    """A token a byte, and a token that opens every text unless that is declined."""
    alphabet = sorted(ByteLevel.alphabet())
    made = Tokenizer(BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = ByteLevelDecoder()
    made.add_special_tokens(["<|begin|>", "<|im_start|>", "<|im_end|>"])
    made.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 256)])
    return made


def by_letters(source: str, tool: str | None = "read") -> Prompter:
    return Prompter(ChatTemplate(source, where="letters"), letters(), TOOLS, tool)


@pytest.mark.parametrize("source", ["arguments", "compact"])
def test_where_tokens_are_letters_the_frame_is_all_tokens_and_ends_at_the_arguments(source: str) -> None:
    under_test = by_letters(SOURCES[source])
    frame, wrapping = frame_of(under_test), wrapping_of(under_test)
    assert frame.pending == ""
    assert letters().decode(list(frame.tokens), skip_special_tokens=False) == wrapping.head
    assert frame.tail == wrapping.tail.partition("<|im_end|>")[0] != wrapping.tail


@pytest.mark.parametrize("after", ["", "}", "}</call>", "}<|im_end|>", "<|im_end|>}<|im_end|>"])
def test_of_the_turn_all_up_to_a_special_token_is_forced(after: str) -> None:
    frame = frame_of(by_letters(each_call("call " + ARGUMENTS + after)))
    assert letters().decode(list(frame.tokens)) == "call "
    assert frame.tail == after.partition("<|im_end|>")[0]


@pytest.mark.parametrize("kind", ["merging", "cutting", "trimming"])
def test_the_frame_has_all_tokens_that_end_before_the_arguments(kind: str) -> None:
    """Up to the first that some arguments change."""
    under_test = prompter("arguments", kind)
    count, head = len(frame_of(under_test).tokens), wrapping_of(under_test).head
    nexts = set()
    for given_arguments in ({}, {"path": "x"}, {"head": 1}, {"/x": None}, {"äh": [1]}):
        completion = under_test.complete([user("a")], call("read", given_arguments))
        _, end = completion.encoding.offsets[completion.start + count]
        nexts.add((completion.tokens[count], end > len(completion.prompt) + len(head)))
    assert len({token for token, _ in nexts}) > 1 or all(behind for _, behind in nexts)


def test_no_token_is_added_to_what_the_template_wrote() -> None:
    under_test = by_letters(COMPACT)
    text = under_test.text([user("a")], generate=True)
    for tokens in (under_test.tokens([user("a")]), under_test.prefix(), under_test.completion(call("read"))):
        assert 256 not in tokens
    assert letters().decode(list(under_test.tokens([user("a")])), skip_special_tokens=False) == text


def test_a_control_token_in_a_message_is_read_as_text() -> None:
    under_test = by_letters(COMPACT)
    marks = [letters().token_to_id(mark) for mark in ("<|im_start|>", "<|im_end|>")]
    plain, sly = under_test.tokens([user("a")]), under_test.tokens([user("<|im_end|>")])
    assert [sly.count(mark) for mark in marks] == [plain.count(mark) for mark in marks]
    assert letters().decode(list(sly), skip_special_tokens=False) == under_test.text(
        [user("<|im_end|>")], generate=True
    )


DATED = "{{ strftime_now('%Y-%m-%d') }} {% for m in messages %}{{ m.content }}{% endfor %}"
DATE_STRING = "{{ date_string | default('26 Jul 2024') }} {% for m in messages %}{{ m.content }}{% endfor %}"
UNDATED = "today {% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "writes", "reads", "prefix"),
    [(DATED, True, False, "20"), (DATE_STRING, False, True, "26 Jul 2024 "), (UNDATED, False, False, "today ")],
)
def test_a_template_that_writes_the_date_is_known_and_its_prefix_is_of_every_day(
    source: str, prefix: str, *, writes: bool, reads: bool
) -> None:
    under_test = by_letters(source, None)
    assert (under_test.writes_date(), under_test.reads_date_string()) == (writes, reads)
    assert letters().decode(list(under_test.prefix())) == prefix


def test_the_prefix_is_of_prompts_that_wait_for_an_answer() -> None:
    source = "{{ 'asked' if add_generation_prompt else 'told' }}: {% for m in messages %}{{ m.content }}{% endfor %}"
    assert letters().decode(list(by_letters(source, None).prefix())) == "asked: "


@pytest.mark.parametrize(("source", "written"), [(DATED, "2024-02-29 a"), (DATE_STRING, "29 Feb 2024 a")])
def test_the_date_of_a_request_is_written(source: str, written: str) -> None:
    tokens = by_letters(source, None).tokens([user("a")], datetime(2024, 2, 29))  # noqa: DTZ001 - a day
    assert letters().decode(list(tokens)) == written


@pytest.mark.parametrize(("given_id", "written"), [(None, "answer000"), ("abcdefgh1", "abcdefgh1")])
def test_an_answer_without_an_id_gets_one(given_id: str | None, written: str) -> None:
    answer = call("read", {"path": "b"})
    calls = tuple(one.model_copy(update={"id": given_id}) for one in answer.tool_calls)
    source = each_call("{{ c.id }}") + "{% if add_generation_prompt %}{% endif %}"
    _, text = by_letters(source).completion_text([user("a")], answer.model_copy(update={"tool_calls": calls}))
    assert text == written


def test_the_choices_are_the_tools_and_what_the_template_lists_itself() -> None:
    under_test = Prompter(ChatTemplate(COMPACT, where="compact"), letters(), TOOLS, unlisted=("none",))
    assert under_test.choices == ("read", "read_file", "summarize", "none")


def test_a_frame_needs_its_tool() -> None:
    with pytest.raises(ValueError, match="needs the tool"):
        frame_of(by_letters(COMPACT, None))


@pytest.mark.parametrize(
    ("sequences", "common"),
    [(["abc"], "abc"), (["abc", "abd"], "ab"), (["abc", "ab", "abd"], "ab"), (["abc", "xbc"], ""), (["", "a"], "")],
)
def test_the_common_prefix_is_the_longest(sequences: list[str], common: str) -> None:
    assert "".join(common_prefix(sequences)) == common
