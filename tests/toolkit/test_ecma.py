"""Patterns mean what ECMA-262 says of them. What matches was read off Node.js 22's RegExp."""

from __future__ import annotations

import pytest

from dualtune_edge.toolkit.ecma import conditions
from dualtune_edge.toolkit.patterns import PatternError, compile_pattern

ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
# A pattern, texts in which it occurs, and others.
CLASSES = [
    (r"^[!-/:-@[-`{-~]+$", ("[", "`", "~", "-", "!?"), ("a", "Z", "0", "")),
    (r"^[a[b]]$", ("a]", "[]", "b]"), ("a", "[", "]")),
    (r"^[^[\]]+$", ("ab", "-"), ("[", "]", "a[")),
    (r"^[a&&b]$", ("a", "&", "b"), ("c", "")),
    (r"^[\w&&\d]$", ("a", "7", "&"), ("-",)),
    (r"^[a-z--b]$", ("q", "-", "0", "Z", "b"), ("+", "c-")),
    (r"^[+--]$", ("+", ",", "-"), (".", "*")),
    (r"^[a~~b]$", ("a", "~", "b"), ("c",)),
    (r"^[a^]$", ("a", "^"), ("b",)),
    (r"^[^^]$", ("a",), ("^",)),
    (r"^[\w-a]$", ("-", "a", "_"), ("+",)),
    (r"^[a-c-e]$", ("b", "-", "e"), ("d",)),
    (r"^[-]$", ("-",), ("a",)),
    (r"^[^]$", ("a", "\n", "é"), ("", "ab")),
    (r"^[\b]$", ("\b",), ("b",)),
    (r"^[\<\>]$", ("<", ">"), ("\\",)),
]
SPELLINGS = [
    (r"^\<a\>$", ("<a>",), ("a",)),
    (r"^{[a-z]+}$", ("{ab}",), ("ab",)),
    (r"^a{,3}$", ("a{,3}",), ("a", "aa")),
    (r"^a{2,}$", ("aa", "aaa"), ("a", "a{2,}")),
    (r"^\cA\0$", ("\x01\x00",), ("A0",)),
    (r"^\u00e9\x41$", ("éA",), ("eA",)),
]
AROUND = [
    (ZOD_EMAIL, ("a@b.co", "a.b+c@d.e.org"), (".a@b.co", "a..b@c.de", "a@b")),
    (r"^(?!\s*$).+", ("a", " a"), ("", "  ")),
    (r"^(?=.*[A-Z])(?=.*\d).{4,}$", ("abC1",), ("abc1", "ABCD", "A1")),
    (r"^(?!-)[a-z-]{1,9}(?<!-)$", ("a", "a-b"), ("-a", "a-", "")),
    (r"^[a-z]+(?<!exe)(?<!bat)$", ("a", "exec"), ("aexe", "bat")),
    (r"^(?!con$|nul$)\w+$", ("con1", "a"), ("con", "nul")),
    (r"[a-z](?<=js|ts)$", ("a.js", "ts"), ("js.", "cs")),
    (r"^(?!a)", ("b", ""), ("a", "ab")),
]


@pytest.mark.parametrize(("source", "occurs", "others"), [*CLASSES, *SPELLINGS, *AROUND])
def test_a_pattern_occurs_where_ecma_says(source: str, occurs: tuple[str, ...], others: tuple[str, ...]) -> None:
    pattern = compile_pattern(source)
    assert [text for text in (*occurs, *others) if pattern.search(text)] == list(occurs)
    core = conditions(source).core
    assert conditions(core).core == core
    assert all(compile_pattern(core).search(text) for text in occurs)


@pytest.mark.parametrize(
    "source",
    ["(?!a)b", "(?<=b)a*(?<=a)$", "^(?:(?!a).)*$", "^(?!a)b|c", "^(?!a)?b", "(^(?!a)b)", r"^(?<!a)b", "a(?!b)"],
)
def test_look_around_elsewhere_is_refused(source: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(source)


@pytest.mark.parametrize("source", ["[", "(", ")", "[a", "a)", "(a", "\\", "[\\", "^(?!", "(?<!a$", "[a-", ""])
def test_what_is_no_expression_stays(source: str) -> None:
    assert conditions(source).core == source
