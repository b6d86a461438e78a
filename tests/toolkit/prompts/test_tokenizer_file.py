"""A tokenizer.json that would take for ever, or all memory, is refused by what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualtune_edge.toolkit.prompts.tokenizer_file import TokenizerError, load_tokenizer, tokenizer_faults

MODEL = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


def faults(**parts: Any) -> str:
    return "; ".join(tokenizer_faults(json.dumps({"model": MODEL, **parts})))


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


BOMB = {"Regex": "(a+)+b"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a split": ({"pre_tokenizer": {"type": "Split", "pattern": BOMB}}, "the expression"),
    "a split in a sequence": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": BOMB}]}},
        "the expression",
    ),
    "a replacement": ({"normalizer": replace(BOMB, "")}, "the expression"),
    "a decoder": ({"decoder": replace(BOMB, "")}, "the expression"),
    "doubling": ({"normalizer": sequence(*[replace({"String": "a"}, "aa")] * 10)}, "characters of one"),
    "much of nothing": ({"normalizer": replace({"String": ""}, "x" * 100)}, "characters of one"),
    "much of an expression": ({"normalizer": replace({"Regex": "b?"}, "x" * 100)}, "characters of one"),
    "a long beginning": ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}}, "characters of one"),
    "compiled tables": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w"}}, "compiled tables"),
    "lots": ({"model": {**MODEL, "dropout": 0.1}}, "dropout"),
    "steps": ({"pre_tokenizer": [{"type": "Digits"}] * 100}, "steps"),
    "no model": ({"model": None}, "no tokenizer"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_may_not_say(name: str) -> None:
    parts, complaint = BAD[name]
    assert complaint in faults(**parts)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", "[" * 100_000])
def test_what_is_no_tokenizer(text: str | bytes) -> None:
    assert list(tokenizer_faults(text))


def test_what_real_ones_say() -> None:
    metaspace = sequence({"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁"), {"type": "NFC"})
    decoder = {"type": "Sequence", "decoders": [replace({"String": "▁"}, " "), {"type": "Fuse"}]}
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}, "behavior": "Isolated", "invert": False}
    pre = {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "use_regex": False}]}
    assert faults(normalizer=metaspace, decoder=decoder, pre_tokenizer=pre) == ""
    assert faults(normalizer=None, truncation=None, padding=None) == ""


SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
CUTTING: dict[str, dict[str, Any]] = {
    "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 1000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "a",
    },
}  # fmt: skip


@pytest.mark.parametrize("part", CUTTING)
def test_what_a_trainer_left_neither_cuts_nor_pads(part: str) -> None:
    text = json.dumps({"model": MODEL, part: CUTTING[part]})
    tokenizer, clean = load_tokenizer(text)
    assert tokenizer.encode("aaaa").ids == [0, 0, 0, 0]
    assert load_tokenizer(clean).tokenizer.encode("aaaa").ids == [0, 0, 0, 0]
    assert json.loads(clean)[part] is None


def test_the_text_stays_where_nothing_cuts() -> None:
    text = json.dumps({"model": MODEL}, indent=1)
    assert load_tokenizer(text).text is text


NONE = {
    "no json": "{",
    "no model": "{}",
    "a huge token": json.dumps({"model": {**MODEL, "vocab": {"a": 2**70}}}),
    "a negative token": json.dumps({"model": {**MODEL, "vocab": {"a": -1}}}),
    "merges of nothing": json.dumps({"model": {**MODEL, "merges": ["x y"]}}),
    "an expression that is none": json.dumps(
        {"model": MODEL, "pre_tokenizer": {**SPLIT, "pattern": {"Regex": "("}}}
    ),
    "a panic": json.dumps({"model": MODEL, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_what_cannot_be_read_is_an_error_and_no_panic(name: str) -> None:
    with pytest.raises(TokenizerError):
        load_tokenizer(NONE[name])
