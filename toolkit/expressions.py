"""What a regular expression may cost, read off its text: how it could search for ever, and how much it must match.

A tokenizer's engine, Oniguruma, backtracks. It does so without end where a repetition repeats what can match in several
ways, as in `(a+)+` or `(a|aa)*`, and where several in a row can share the same characters and what comes behind them
fails, as in `a*a*a*b`. The expressions of real tokenizers do neither.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Final

_LONGEST: Final = 16_384  # characters of an expression
_DEEPEST: Final = 64  # groups in groups
_IN_A_ROW: Final = 1  # repetitions of any length before something that can fail: time grows with the square
_ENDLESS: Final = 1 << 30  # times, where there is no upper bound
_QUANTIFIER: Final = re.compile(r"([*+?])[+?]?|\{(\d+)(,?)(\d*)\}\??|\{,(\d+)\}\??")
_ESCAPE: Final = re.compile(r"\\(?:[pPxo]\{[^}]*\}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_AGAIN: Final = re.compile(r"\\(?:[1-9k]|g[<'])")  # what was matched before, or the expression itself
_OPENING: Final = re.compile(r"\((?:\?(?:[imsWDSP-]*:|[=!>]|<[=!]|P?<\w+>|'\w+'))?(?!\?)")
_FLAGS: Final = re.compile(r"\(\?[imsWDSP-]+\)")  # for all that follows


class ExpressionError(ValueError):
    """Why an expression is not to be used."""


@dataclass
class _Run:
    """An alternative, as far as it was read; for a group, the worst of its alternatives in each."""

    varies: bool = False  # whether it can match in several ways: alternatives, or a variable number of times
    endless: int = 0  # its repetitions of any length
    in_a_row: int = 0  # those before something that can fail
    least: int = 0  # characters of the shortest text

    def or_else(self, other: _Run) -> _Run:
        """Two alternatives as one."""
        return _Run(
            varies=True,
            endless=max(self.endless, other.endless),
            in_a_row=max(self.in_a_row, other.in_a_row),
            least=min(self.least, other.least),
        )


def refuse_backtracking(source: str, *, in_a_row: int = _IN_A_ROW) -> None:
    """Look at an expression.

    Args:
        source: the expression.
        in_a_row: repetitions of any length that may stand before something that can fail. The time grows with a text's
            length to the power of one more.

    Raises:
        ExpressionError: its time could grow beyond that, or it cannot be read.

    """
    if len(source) > _LONGEST:
        raise ExpressionError(f"{len(source)} characters, over the {_LONGEST} allowed")
    reader = _Reader(source)
    whole = reader.alternatives()
    if reader.at < len(source):
        raise ExpressionError(f"a ) without its ( at character {reader.at}")
    if whole.in_a_row > in_a_row:
        raise ExpressionError(f"{whole.in_a_row} repetitions in a row before something that can fail")


def least_length(source: str) -> int:
    """Characters of the shortest text that the expression matches; 0 where it cannot be read."""
    try:
        return _Reader(source, nested=True).alternatives().least
    except ExpressionError:
        return 0


class _Reader:
    """Reads an expression from left to right. `nested`: whether repetitions may stand in repetitions."""

    def __init__(self, source: str, *, nested: bool = False) -> None:
        self.source, self.at, self._depth, self._nested = source, 0, 0, nested

    def alternatives(self) -> _Run:
        """Up to the end, or to the bracket that closes a group."""
        run: _Run = _Run()
        others: list[_Run] = []
        while self.at < len(self.source) and self.source[self.at] != ")":
            if self.source[self.at] == "|":
                self.at += 1
                others.append(run)
                run = _Run()
            else:
                self._item(run)
        return functools.reduce(_Run.or_else, others, run)

    def _item(self, run: _Run) -> None:
        """Read one item with its quantifier, and count it in."""
        inner = self._atom()
        least, most = self._times()
        if inner.varies and most > 1 and not self._nested:
            raise ExpressionError(f"a repetition of what varies before character {self.at}")
        if least > 0:  # it can fail
            run.in_a_row = max(run.in_a_row, run.endless + inner.in_a_row)
        run.varies = run.varies or least != most or inner.varies
        run.endless += inner.endless + (most == _ENDLESS)
        run.least += least * inner.least

    def _atom(self) -> _Run:
        """Read a group, a class, an escape or a character; what is in a group."""
        character = self.source[self.at]
        if character == "(":
            flags = _FLAGS.match(self.source, self.at)
            if flags is None:
                return self._group()
            self.at = flags.end()
            return _Run()
        if character in "^$":
            self.at += 1
            return _Run()
        if character == "[":
            self._class()
        elif character == "\\":
            if _AGAIN.match(self.source, self.at):
                raise ExpressionError(f"a reference back at character {self.at}")
            self._skip(_ESCAPE)
        else:
            self.at += 1
        return _Run(least=1)

    def _group(self) -> _Run:
        start = self.at
        self._skip(_OPENING)
        looks = self.source[start : start + 3] in {"(?=", "(?!"} or self.source[start : start + 4] in {"(?<=", "(?<!"}
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError(f"groups in groups, over {_DEEPEST} deep")
        inner = self.alternatives()
        if self.at == len(self.source):
            raise ExpressionError("a ( without its )")
        self.at += 1
        self._depth -= 1
        return replace(inner, least=0) if looks else inner

    def _class(self) -> None:
        """A class may hold others: `[a-z&&[^b]]`."""
        depth = 0
        while self.at < len(self.source):
            character = self.source[self.at]
            if character == "\\":
                self._skip(_ESCAPE)
                continue
            self.at += 1
            if character == "[":
                depth += 1
                self._skip(re.compile(r"\^?\]?"))  # a ] right behind the opening stands for itself
            elif character == "]":
                depth -= 1
                if depth == 0:
                    return
        raise ExpressionError("a [ without its ]")

    def _times(self) -> tuple[int, int]:
        """The least and the most times that the item stands there."""
        match = _QUANTIFIER.match(self.source, self.at)
        if match is None:
            return 1, 1
        self.at = match.end()
        if _QUANTIFIER.match(self.source, self.at):
            raise ExpressionError(f"a repetition of a repetition at character {self.at}")
        sign, low, comma, high, up_to = match.groups()
        if sign:
            return {"*": (0, _ENDLESS), "+": (1, _ENDLESS), "?": (0, 1)}[sign]
        if up_to:
            return 0, int(up_to)
        return int(low), int(high) if high else _ENDLESS if comma else int(low)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.source, self.at)
        if match is None:
            raise ExpressionError(f"an unknown group or escape at character {self.at}")
        self.at = match.end()
