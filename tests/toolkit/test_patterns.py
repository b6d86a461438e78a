"""Patterns of other people: right answers, in linear time, and a named reason where there is none."""

from __future__ import annotations

import random
import re
from typing import Final

import pytest

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.patterns import PatternError, compile_pattern

ORDINARY = (
    "", "b", "^b", "c$", "^$", "^a.c$", "[a-c]+", "^[^a]", "a|b", "^(a|b)*$", r"\d{2,3}", r"^\w+$",
    r"^\S+@\S+\.\w{2,}$", "(?:ab)+", r"\.", r"a\/b", "^(?:a|ab)(?:c|bcd)$", "[\\s\\S]", "^.{3}$",
)  # fmt: skip
TEXTS = (
    "",
    "a",
    "abc",
    "abcd",
    "a.c",
    "a\nc",
    "12",
    "1234",
    "ü",
    "x@y.org",
    "a/b",
    '"quoted"\\',
    "\x7f",
    "\x00\t",
    "漢字",
)


@pytest.mark.parametrize("source", ORDINARY)
def test_it_finds_what_python_finds(source: str) -> None:
    found = [compile_pattern(source).search(text) for text in TEXTS]
    # Python's `$` also stands before a newline at the end, and its \d and \w know Unicode; JSON Schema's do neither.
    assert found == [bool(re.search(source.replace("$", r"\Z"), text, re.ASCII)) for text in TEXTS]


def test_unicode_classes_and_named_groups_are_known() -> None:
    assert compile_pattern(r"^\p{L}+$").search("größe")
    assert not compile_pattern(r"^\p{L}+$").search("7")
    assert compile_pattern(r"^(?<year>\d{4})$").search("1984")


@pytest.mark.parametrize("text", [chr(code) for code in (*range(0x250), 0x2028, 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF)])
def test_every_character_is_a_character(text: str) -> None:
    assert compile_pattern(r"^[\s\S]$").search(text)


NEVER_ENDING = (
    "^(a+)+b$",
    "^(a|a)*b$",
    "^(a|aa)+b$",
    r"^([a-z]+)*\d$",
    "(x+x+)+y",
    "^(.*)*b$",
    "^((a*)*)*b$",
    "(a?){40}a{40}b",
)


@pytest.mark.parametrize("source", NEVER_ENDING)
def test_what_backtracks_for_ever_is_read_once(source: str) -> None:
    text = "a" * 20_000
    assert not compile_pattern(source).search(f"{text}!")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("(", "unclosed group"),
        ("[", "unclosed character class"),
        ("*", "repetition operator missing expression"),
        ("a{99999999999999}", "texts of 99999999999999 characters"),
        ("(" * 4_000 + ")" * 4_000, "nested"),
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "backreferences"),
        (r"\bword\b", "lookarounds"),
        ("a" * (limits.PATTERN_CHARS + 1), "characters, over the"),
    ],
)
def test_what_cannot_be_used_is_told(source: str, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        compile_pattern(source)


DRAW: Final = random.Random(0)  # noqa: S311 - seeded, not secret
TOO_LARGE = {"(a|b)*a(a|b){200}": "".join(DRAW.choices("ab", k=20_000)), "((a{1,100}){1,100}){1,100}": "a" * 50}


@pytest.mark.parametrize("source", TOO_LARGE)
def test_an_automaton_that_grows_too_large_is_an_error(source: str) -> None:
    with pytest.raises(PatternError, match="too many"):
        compile_pattern(source).search(TOO_LARGE[source])
