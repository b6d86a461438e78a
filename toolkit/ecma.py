"""JSON Schema's regular expressions, which are ECMA-262's, as the Rust engine inside llguidance reads them.

The two differ in classes, where Rust knows classes in classes and operators on them (`[`, `&&`, `--`, `~~`), and in
some escapes. Rust has no look-around; what stands at the ends of an expression is split off: `^(?!a)(?=.*b)c(?<!d)$`
occurs in a text where `^c$` and `^(?:.*b)` do, and neither `^(?:a)` nor `(?:d)$`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_KEPT: Final = 256  # expressions
_ESCAPE: Final = re.compile(
    r"\\(?:[pP]\{[^}]*\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]+\}|c[a-zA-Z]|.)", re.DOTALL
)
_OPENING: Final = re.compile(r"\((?:\?(?:[:=!]|<[=!]))?")
_TIMES: Final = re.compile(r"\{\d+(?:,\d*)?\}")
_AHEAD, _BEHIND = ("(?=", "(?!"), ("(?<=", "(?<!")
_QUANTIFIERS: Final = ("*", "+", "?", "{")
_SETS: Final = ("\\d", "\\D", "\\w", "\\W", "\\s", "\\S", "\\p", "\\P")  # escapes that stand for several characters
_OPERATORS: Final = frozenset("[&~^-")  # of Rust's classes; in ECMA-262's these are characters
_SPELLED: Final = {r"\<": "<", r"\>": ">", r"\0": r"\x00"}  # what Rust reads as something else


@dataclass(frozen=True)
class Conditions:
    """An expression occurs in a text where `core` and all of `present` do, and none of `absent`."""

    core: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def looks_around(self) -> bool:
        """Whether the expression says more than `core`."""
        return bool(self.present or self.absent)


@lru_cache(maxsize=_KEPT)
def conditions(source: str) -> Conditions:
    """An expression in Rust's spelling; what is none, or looks around elsewhere, that engine refuses."""
    items = _items(source)
    if items is None:
        return Conditions(source)
    begin, end = 0, len(items)
    if "|" not in items and items[:1] == ["^"]:
        begin = 1
        while begin < end and items[begin].startswith(_AHEAD) and not _is_repeated(items, begin):
            begin += 1
    if "|" not in items and items[-1:] == ["$"]:
        end -= 1
        while end > begin and items[end - 1].startswith(_BEHIND):
            end -= 1
    ahead, behind = items[1:begin], items[end:-1]
    if not ahead and not behind:
        return Conditions("".join(items))
    core = "".join((*items[: min(begin, 1)], *items[begin:end], *items[end:][-1:]))
    tests = [(item[2] == "=", f"^(?:{item[3:]}") for item in ahead]
    tests += [(item[3] == "=", f"(?:{item[4:]}$") for item in behind]
    return Conditions(
        "" if core == "^" else core,
        tuple(test for wanted, test in tests if wanted),
        tuple(test for wanted, test in tests if not wanted),
    )


def _is_repeated(items: list[str], at: int) -> bool:
    return at + 1 < len(items) and items[at + 1].startswith(_QUANTIFIERS)


def _items(source: str) -> list[str] | None:
    """Characters, classes, escapes and whole groups, in Rust's spelling; None: a bracket has no other."""
    stack: list[list[str]] = [[]]
    at = 0
    while at < len(source):
        character = source[at]
        if character == "[":
            found = _class(source, at)
            if found is None:
                return None
            text, at = found
            stack[-1].append(text)
        elif character == ")":
            if len(stack) == 1:
                return None
            group = "".join(stack.pop())
            stack[-1].append(f"{group})")
            at += 1
        elif character == "(":
            opening = _OPENING.match(source, at)
            stack.append([opening.group() if opening else character])
            at += len(stack[-1][0])
        else:
            text, at = _atom(source, at)
            stack[-1].append(text)
    return stack[0] if len(stack) == 1 else None


def _atom(source: str, at: int) -> tuple[str, int]:
    """An escape, a quantifier or a character, and where it ends."""
    if escape := _ESCAPE.match(source, at):
        return _spelled(escape.group()), escape.end()
    if times := _TIMES.match(source, at):
        return times.group(), times.end()
    return r"\{" if source[at] == "{" else source[at], at + 1


def _spelled(escape: str) -> str:
    if escape.startswith("\\c") and len(escape) > 2:
        return f"\\x{ord(escape[2]) % 32:02x}"
    return _SPELLED.get(escape, escape)


def _class(source: str, at: int) -> tuple[str, int] | None:
    """A class in Rust's spelling, and where it ends."""
    negated = source.startswith("[^", at)
    at += 1 + negated
    members = []
    while at < len(source) and source[at] != "]":
        first, at = _member(source, at)
        if source.startswith("-", at) and not source.startswith("-]", at) and at + 1 < len(source):
            last, at = _member(source, at + 1)
            is_range = not first.startswith(_SETS) and not last.startswith(_SETS)
            first = f"{first}-{last}" if is_range else f"{first}\\-{last}"
        members.append(first)
    if at == len(source):
        return None
    if not members:
        return (r"[\s\S]" if negated else r"[^\s\S]"), at + 1
    return f"[{'^' if negated else ''}{''.join(members)}]", at + 1


def _member(source: str, at: int) -> tuple[str, int]:
    """A member of a class, and where it ends."""
    if escape := _ESCAPE.match(source, at):
        return (r"\x08" if escape.group() == r"\b" else _spelled(escape.group())), escape.end()
    return f"\\{source[at]}" if source[at] in _OPERATORS else source[at], at + 1
