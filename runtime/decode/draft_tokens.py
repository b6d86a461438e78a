"""A draft in tokens: a guessed text, cut to what the grammar lets be decided, with the forced tokens in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llguidance import LLMatcher, LLTokenizer

# Tokens of a draft. Each costs about a quarter of a forward (int4, 0.5B, one thread), so a wrong guess must be short,
# and one that proves right may be long: a draft that was accepted whole is followed by one of twice the length.
FIRST_DRAFT: Final = 8
LONGEST_DRAFT: Final = 24
_CONTEXT: Final = 8  # tokens before a guess that may merge with it


@dataclass(frozen=True)
class Draft:
    """Tokens to append behind what is written.

    `rows`: before which of them the model decides (indices of `tokens`, rising, 0 first), and one more at the end.
    The tokens in between are forced: a decision's own token stands at its row, forced ones follow it.
    """

    tokens: tuple[int, ...]
    rows: tuple[int, ...]


NO_DRAFT: Final = Draft((), (0,))


def continuation(tokenizer: LLTokenizer, written: Sequence[int], guess: bytes) -> list[int]:
    """The tokens of `guess` behind `written`, spelt as in one text where the written tokens allow it."""
    before = list(written[-_CONTEXT:])
    while before:
        whole = tokenizer.tokenize_bytes(tokenizer.decode_bytes(before) + guess)
        if whole[: len(before)] == before:
            return list(whole[len(before) :])
        del before[: max(1, len(before) // 2)]
    return list(tokenizer.tokenize_bytes(guess))


def follow(matcher: LLMatcher, guess: Sequence[int], *, room: int, longest: int) -> Draft:
    """What of a guess the grammar allows; the matcher is used up.

    Args:
        matcher: stands where the guess begins.
        guess: its tokens.
        room: the most tokens, with those that the grammar forces.
        longest: the most tokens that the model is to decide.

    """
    tokens, rows, at = list[int](), [0], 0
    while at < len(guess) and len(rows) <= longest:
        if not matcher.try_consume_tokens([guess[at]]):
            break
        forced = matcher.compute_ff_tokens()
        step = [guess[at], *forced]
        if len(tokens) + len(step) > room or matcher.is_accepting():
            break
        matcher.consume_tokens(forced)
        if matcher.is_accepting():
            break
        tokens += step
        rows.append(len(tokens))
        same = list(guess[at + 1 : at + 1 + len(forced)]) == forced
        at += len(step)
        if not same:
            break
    return Draft(tuple(tokens), tuple(rows))
