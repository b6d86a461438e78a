"""Whether a model has begun to write the same thing over and over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llguidance import LLTokenizer

from dualtune_edge.runtime.decode.json_position import position
from dualtune_edge.runtime.decode.sources import Sources

# Tokens that one piece repeated covers. Rows of zeros are a value; a text of the same words is one more seldom.
TEXT: Final = 256
LIST: Final = 1_024
TIMES: Final = 16  # the fewest repetitions


@dataclass(frozen=True)
class Repetition:
    """A piece that was written `times` times in a row."""

    piece: str
    times: int


def repetition(
    written: Sequence[int], pending: str, tokenizer: LLTokenizer, sources: Sources | None
) -> Repetition | None:
    """The repetition that `written` ends with, if it goes on without end.

    That is a piece repeated `TIMES` times or more, over `TEXT` tokens inside a text and `LIST` tokens elsewhere. A
    repetition that stands in the conversation is none: it may be copied.

    Args:
        written: tokens of the frame's pending text and the arguments so far.
        pending: that text.
        tokenizer: theirs.
        sources: the conversation.

    """
    length = _period(written, TEXT)
    if length is None:
        return None
    span = TEXT
    place = position(_text(tokenizer, written).removeprefix(pending))
    if place.kind != "string" or len(place.text) < len(_text(tokenizer, written[-TEXT:])):
        length, span = _period(written, LIST), LIST
    if length is None or (sources and sources.hold_written(_text(tokenizer, written[-span:]))):
        return None
    return Repetition(_text(tokenizer, written[-length:]), span // length)


def _text(tokenizer: LLTokenizer, tokens: Sequence[int]) -> str:
    """What tokens say, without the parts of characters at both ends."""
    text: str = tokenizer.decode_bytes(list(tokens)).decode(errors="ignore")
    return text


def _period(written: Sequence[int], span: int) -> int | None:
    """The tokens of the shortest piece whose repetition are the last `span` tokens."""
    tail = list(written[-span:])
    if len(tail) < span:
        return None
    lengths = range(1, span // TIMES + 1)
    return next((length for length in lengths if tail[length:] == tail[:-length]), None)
