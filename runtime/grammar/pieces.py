"""Pieces of a conversation as a grammar's terminals: what a copied value can be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dualtune_edge.toolkit.bundle.manifest import Border
from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.prompt_plan import Frame

LONGEST: Final = 65_536  # characters of a conversation, as JSON escapes it, that values are held to
TERMINALS: Final[dict[Border, str]] = {"words": "WORDS", "characters": "CHARACTERS"}

_LONGEST_WORD: Final = 128  # characters; a longer one, of base64, has a border behind each so many
# Scripts that put no space between a word and what follows it: each character is a word.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_ACCENTS: Final = "\u0300-\u036f"  # of letters that are written as two characters, as in paths of macOS
_WORD: Final = re.compile(rf"(?:[^\W{_UNSPACED}]|[{_ACCENTS}]){{1,{_LONGEST_WORD}}}|.", re.DOTALL)
_END: Final = "\0"  # behind each text: JSON escapes it, so no value goes past it
# A character of a JSON text, one beyond the first 65,536 as two escapes.
_PAIR: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_CHARACTER: Final = rf'[^"\\\x00-\x1F]|\\["\\bfnrt]|\\u([0-9a-ce-fA-CE-F][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{{2}}|{_PAIR}'


@dataclass(frozen=True)
class Piece:
    """What a copied value can be: a piece of the conversation, or one of the schema's defaults."""

    border: Border
    defaults: tuple[str, ...] = ()

    def body(self, frame: Frame, low: int, high: int | None) -> str:
        """Of a terminal: such a value in quotes, and a piece has `low` to `high` characters, one at least."""
        lengths = f"{{{max(low, 1)},{'' if high is None else high}}}"
        piece = f'"\\"" ({TERMINALS[self.border]} & /({_CHARACTER}){lengths}/) "\\""'
        fitting = [text for text in self.defaults if low <= len(text) <= (len(text) if high is None else high)]
        return " | ".join([piece, *(json.dumps(_encoder(frame).encode(text)) for text in fitting)])


def conversation(messages: Sequence[Message]) -> tuple[str, ...]:
    """The texts that values are copied from: what every message says, and the values of earlier calls.

    The system's and the assistant's count as well: a user refers to what stands there.
    """
    texts: dict[str, None] = {}
    for message in messages:
        texts[message.content] = None
        for call in message.tool_calls:
            texts |= dict.fromkeys(_texts(call.function.arguments))
    return tuple(text for text in texts if text)


def borders(text: str, border: Border) -> list[int]:
    """The indices where a piece may begin or end, rising."""
    if border == "characters":
        return list(range(len(text) + 1))
    return [0, *(match.end() for match in _WORD.finditer(text))] if text else [0]


def holds(text: str, value: str, border: Border) -> bool:
    """Whether a value is a piece of the text."""
    allowed = set(borders(text, border)) if value in text else set[int]()
    starts = (match.start() for match in re.finditer(f"(?={re.escape(value)})", text)) if value and allowed else ()
    return any(start in allowed and start + len(value) in allowed for start in starts)


def terminal(texts: Iterable[str], border: Border, frame: Frame) -> str:
    """A line of a grammar: a terminal that is any run of words, or characters, of one of the texts."""
    encode = _encoder(frame).encode
    chunks: list[str] = []
    for text in texts:
        parts: Iterable[str] = text if border == "characters" else _WORD.findall(text)
        chunks += [encode(part)[1:-1] for part in parts]
        chunks.append(_END)
    return f"{TERMINALS[border]}: %regex {json.dumps({'substring_chunks': chunks})}\n"


def size(texts: Iterable[str], frame: Frame) -> int:
    """Characters of the texts as JSON escapes them."""
    encode = _encoder(frame).encode
    return sum(len(encode(text)) - 2 for text in texts)


def _encoder(frame: Frame) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=frame.ascii_only)


def _texts(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            stack += reversed(part.values())
        elif isinstance(part, list):
            stack += reversed(part)
