"""Regular expressions of other people, matched in linear time: JSON Schema's dialect, as llguidance reads it.

Python's `re` tries one way after the other, and `^(a+)+b$` has more ways than anybody can wait for. llguidance derives
an automaton and reads each character once. It is what holds a `pattern` while arguments are written, so a value that
was written is checked by the same rules. It has no back-references, and look-around only as `ecma` splits it off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.ecma import conditions
from dualtune_edge.toolkit.expressions import least_length
from dualtune_edge.toolkit.native import PanicError, catch_panics

_BYTES: Final = 256  # tokens of the tokenizer: one a byte, and the end behind them
_NEEDS_AN_ESCAPE: Final = {
    0x7F: "\\u007f"
}  # the one character that `json.dumps` writes plainly and llguidance does not
_KEPT: Final = 256  # patterns whose automata are kept


class PatternError(ValueError):
    """Why a pattern cannot be used; the caller makes its own `EdgeError` of it."""


@dataclass(frozen=True)
class Pattern:
    """A pattern that is searched for in texts."""

    source: str
    _present: tuple[LLMatcher, ...]  # before the first character
    _absent: tuple[LLMatcher, ...]

    def search(self, text: str) -> bool:
        """Whether the pattern occurs in the text.

        Raises:
            PatternError: the automaton grows too large on this text.

        """
        data = _json(text)
        return all(self._reads(matcher, data) for matcher in self._present) and not any(
            self._reads(matcher, data) for matcher in self._absent
        )

    def _reads(self, before: LLMatcher, data: bytes) -> bool:
        matcher = before.deep_copy()
        try:
            with catch_panics():
                read = matcher.try_consume_tokens(list(data))
        except (PanicError, ValueError) as error:
            raise _refusal(self.source, str(error)) from None
        if matcher.is_error():
            raise _refusal(self.source, matcher.get_error())
        return bool(read == len(data) and matcher.is_accepting())


@lru_cache(maxsize=_KEPT)
def compile_pattern(source: str) -> Pattern:
    """A pattern, ready to search.

    Raises:
        PatternError: it is no regular expression, has a back-reference or look-around in its midst, or is too large.

    """
    if len(source) > limits.PATTERN_CHARS:
        raise PatternError(f"a pattern of {len(source)} characters, over the {limits.PATTERN_CHARS} allowed")
    if (least := least_length(source)) > limits.SCHEMA_LITERAL_CHARS:
        raise PatternError(f"a pattern of texts of {least} characters, over the {limits.SCHEMA_LITERAL_CHARS} allowed")
    parts = conditions(source)
    return Pattern(
        source,
        tuple(_compiled(source, part) for part in (parts.core, *parts.present)),
        tuple(_compiled(source, part) for part in parts.absent),
    )


def _compiled(source: str, part: str) -> LLMatcher:
    try:
        with catch_panics():
            grammar = LLMatcher.grammar_from_json_schema({"type": "string", "pattern": part})
            matcher = LLMatcher(_tokenizer(), grammar, log_level=0, limits=_limits())
    except (PanicError, ValueError) as error:
        raise _refusal(source, str(error)) from None
    if matcher.is_error():
        raise _refusal(source, matcher.get_error())
    return matcher


def _json(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).translate(_NEEDS_AN_ESCAPE).encode("utf-8", "surrogatepass")


def _refusal(source: str, message: str) -> PatternError:
    """With the reason that llguidance gives: the last line of its message that is not about its state."""
    lines = message.partition("\n<state>")[0].partition("\n   1 | ")[0].strip().splitlines()
    shown = source if len(source) <= 60 else f"{source[:57]}…"
    return PatternError(f"the pattern {shown!r}: {lines[-1].removeprefix('error: ') if lines else 'no reason given'}")


class _Bytes:
    """What llguidance asks of a tokenizer: one token a byte."""

    eos_token_id = _BYTES
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(_BYTES)), b"<end>")
    special_token_ids = (_BYTES,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def _tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])


def _limits() -> LLParserLimits:
    return LLParserLimits(max_lexer_states=limits.PATTERN_STATES)
