"""Where in a JSON text that is still being written one stands: inside which brackets, and inside a string or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["key", "string", "value", "after"]
_CLOSING: Final = {"{": "}", "[": "]"}
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS: Final = re.compile(r"[{}\[\]]")
_MARKS: Final = re.compile(r"[{}\[\],:\0]")


@dataclass(frozen=True)
class Position:
    """The end of a JSON text.

    `kind`: in a key, or where one begins; inside a string that is a value; where a value begins or a bare one (number,
    true) goes on; behind a value. `text`: what of the string or bare value is written, as written; of a key with its
    quote. `closing`: the brackets that are still to be closed, innermost first.
    """

    kind: Kind
    text: str
    closing: str


def position(written: str) -> Position:
    """Where `written`, the beginning of a JSON text, ends. A text that is no JSON gives some position."""
    plain = _STRING.sub("\0", written)  # whole strings may hold brackets and marks
    outside, quote, text = plain.partition('"')
    stack: list[str] = []
    for bracket in _BRACKETS.findall(outside):
        if bracket in _CLOSING:
            stack.append(bracket)
        else:
            del stack[-1:]
    closing = "".join(_CLOSING[bracket] for bracket in reversed(stack))
    marks = [":", *_MARKS.findall(outside)]
    mark = marks[-1]
    behind = marks[-2] if mark == "\0" and not quote else mark  # what a whole string stands behind
    if behind == "{" or (behind == "," and stack[-1:] == ["{"]):
        return Position("key", quote + text, closing)
    if quote:
        return Position("string", text, closing)
    if mark in "}]\0":
        return Position("after", "", closing)
    return Position("value", _MARKS.split(outside)[-1].lstrip(), closing)
