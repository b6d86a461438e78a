"""The expressions of real tokenizers pass; those that never come back do not."""

# ruff: noqa: E501 - expressions as they are published

from __future__ import annotations

import pytest

from dualtune_edge.toolkit.expressions import ExpressionError, least_length, refuse_backtracking

REAL = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+",
    "cl100k": r"(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "scripts": r"[一-龥぀-ゟ゠-ヿ]+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "classes in classes": r"[\p{Han}]+|[^\r\n]?[\p{Lu}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{M}&&[^\p{Han}]]+(?i:'s|'t)?|\p{N}{1,3}",
    "groups of digits": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    "spaces": " {2,}",
    "digits": r"\d",
    "a number": r"-?\d+(?:\.\d+)?",
    "behind": r"(?<!\d)a(?<=b)c",
    "braces": "a{,3}{}{,}",
    "empty": "",
}
ENDLESS = (
    "(a+)+b", "(a|a)*b", "(a|aa)+b", "(a*)*", "(.*)*x", "(a+){2,5}", "((a+))+", "(?:a+)*b", "(?=(a+)+b)a", "a*a*a*b",
    "(a*b*)*", "(a?){50}", "(a|b+)+", "([a-z]+)+$", r"\s*\s*x", r"(a*)\1", r"(?<x>a\g<x>?b)", "(?<x>a*)\\k<x>", "a**",
    "a{1,3}+", "(?:(?:a*)?)*b", "(a+?)+?b", "(?>a+)+b", "(a{0,100}){100}", ".*.*=.*", "x|(y|(a+)+)", "(?i)(a+)+",
)  # fmt: skip
UNREADABLE = ("(", ")", "[a", "(?x: a # ( \n )", "(?#(a+)+)", "(?~a)", "a\\", "(" * 100 + ")" * 100, "a" * 20_000)


@pytest.mark.parametrize("name", REAL)
def test_what_real_tokenizers_have_passes(name: str) -> None:
    refuse_backtracking(REAL[name])


@pytest.mark.parametrize("source", [*ENDLESS, *UNREADABLE])
def test_what_never_comes_back_or_cannot_be_read_does_not(source: str) -> None:
    with pytest.raises(ExpressionError):
        refuse_backtracking(source)


@pytest.mark.parametrize(
    ("source", "length"),
    [
        ("", 0), ("abc", 3), ("^a$", 1), ("a*b+c?", 1), ("a{7}", 7), ("a{7,}", 7), ("a{,7}", 0), ("(a{10}){10}", 100),
        ("((a{100}){100}){100}", 10**6), ("a|bcd", 1), ("(?:ab|cde)f", 3), ("[a-z]{3}[^]x]", 4), (r"\d{4}-\d{2}", 7),
        (r"\p{L}{5}\x41", 6), ("(?=abc)d", 1), ("(?<!abc)d", 1), ("(?i)ab", 2), ("(?P<n>ab){2}", 4), ("(a+)+", 1), ("(", 0),
    ],
)  # fmt: skip
def test_the_shortest_text(source: str, length: int) -> None:
    assert least_length(source) == length
