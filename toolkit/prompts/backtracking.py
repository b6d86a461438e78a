"""Whether a tokenizer's regular expression could search for ever: its engine, Oniguruma, backtracks.

It does so where a repetition repeats what can match in several ways, as in `(a+)+` or `(a|aa)*`, and where several in
a row can share the same characters and what comes behind them fails, as in `a*a*a*b`. The expressions of real
tokenizers do neither.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

_LONGEST: Final = 16_384  # characters of an expression
_DEEPEST: Final = 32  # groups in groups
_IN_A_ROW: Final = 1  # repetitions of any length before something that can fail: time grows with the square
_ENDLESS: Final = 1 << 30  # times, where there is no upper bound
_QUANTIFIER: Final = re.compile(r"([*+?])[+?]?|\{(\d+)(,?)(\d*)\}\??|\{,(\d+)\}\??")
_ESCAPE: Final = re.compile(r"\\(?:[pPxo]\{[^}]*\}|x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_AGAIN: Final = re.compile(r"\\(?:[1-9k]|g[<'])")  # what was matched before, or the expression itself
_OPENING: Final = re.compile(r"\((?:\?(?:[imsWDSP-]*:|[=!>]|<[=!]|<\w+>|'\w+'))?(?!\?)")
_FLAGS: Final = re.compile(r"\(\?[imsWDSP-]+\)")  # for all that follows


class BacktrackingError(ValueError):
    """Why an expression is not to be used."""


@dataclass
class _Run:
    """An alternative, as far as it was read; for a group, the worst of its alternatives in each."""

    varies: bool = False  # whether it can match in several ways: alternatives, or a variable number of times
    endless: int = 0  # its repetitions of any length
    in_a_row: int = 0  # those before something that can fail

    def or_else(self, other: _Run) -> _Run:
        """Two alternatives as one."""
        return _Run(True, max(self.endless, other.endless), max(self.in_a_row, other.in_a_row))  # noqa: FBT003


def refuse_backtracking(source: str) -> None:
    """Look at an expression.

    Raises:
        BacktrackingError: its time could grow beyond the square of a text's length, or it cannot be read.

    """
    if len(source) > _LONGEST:
        raise BacktrackingError(f"{len(source)} characters, over the {_LONGEST} allowed")
    reader = _Reader(source)
    whole = reader.alternatives()
    if reader.at < len(source):
        raise BacktrackingError(f"a ) without its ( at character {reader.at}")
    if whole.in_a_row > _IN_A_ROW:
        raise BacktrackingError(f"{whole.in_a_row} repetitions in a row before something that can fail")


class _Reader:
    """Reads an expression from left to right."""

    def __init__(self, source: str) -> None:
        self.source, self.at, self._depth = source, 0, 0

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
        if inner.varies and most > 1:
            raise BacktrackingError(f"a repetition of what varies before character {self.at}")
        if least > 0:  # it can fail
            run.in_a_row = max(run.in_a_row, run.endless + inner.in_a_row)
        run.varies = run.varies or least != most or inner.varies
        run.endless += inner.endless + (most == _ENDLESS)

    def _atom(self) -> _Run:
        """Read a group, a class, an escape or a character; what is in a group."""
        character = self.source[self.at]
        if character == "(" and (flags := _FLAGS.match(self.source, self.at)):
            self.at = flags.end()
        elif character == "(":
            return self._group()
        elif character == "[":
            self._class()
        elif character == "\\":
            if _AGAIN.match(self.source, self.at):
                raise BacktrackingError(f"a reference back at character {self.at}")
            self._skip(_ESCAPE)
        else:
            self.at += 1
        return _Run()

    def _group(self) -> _Run:
        self._skip(_OPENING)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BacktrackingError(f"groups in groups, over {_DEEPEST} deep")
        inner = self.alternatives()
        if self.at == len(self.source):
            raise BacktrackingError("a ( without its )")
        self.at += 1
        self._depth -= 1
        return inner

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
        raise BacktrackingError("a [ without its ]")

    def _times(self) -> tuple[int, int]:
        """The least and the most times that the item stands there."""
        match = _QUANTIFIER.match(self.source, self.at)
        if match is None:
            return 1, 1
        self.at = match.end()
        if _QUANTIFIER.match(self.source, self.at):
            raise BacktrackingError(f"a repetition of a repetition at character {self.at}")
        sign, low, comma, high, up_to = match.groups()
        if sign:
            return {"*": (0, _ENDLESS), "+": (1, _ENDLESS), "?": (0, 1)}[sign]
        if up_to:
            return 0, int(up_to)
        return int(low), int(high) if high else _ENDLESS if comma else int(low)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.source, self.at)
        if match is None:
            raise BacktrackingError(f"an unknown group or escape at character {self.at}")
        self.at = match.end()
