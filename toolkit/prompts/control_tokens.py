"""Control tokens in what users and tools say: read as the text that they are, never as the marks of a template.

Without this a file that holds `<|im_end|>` could end the turn that quotes it, and speak in the user's name behind it.

Method: transformers' `sanitize_control_tokens` (utils/chat_template_utils.py). Such texts are marked before the render;
behind it they are encoded without the tokenizer's added tokens, all else as usual.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer

from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.messages import Message

_MARKS: Final = tuple(map(chr, range(0xFDD0, 0xFDF0)))  # noncharacters: Unicode keeps them for such use


@dataclass(frozen=True)
class ControlTokens:
    """Of one tokenizer under one template. `pattern` finds their texts, the longest first."""

    tokenizer: Tokenizer
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, tokenizer: Tokenizer, literals: str) -> ControlTokens:
        """The special tokens, and those other added ones that the template writes out.

        Args:
            tokenizer: the base's.
            literals: all texts of the template itself.

        """
        added = tokenizer.get_added_tokens_decoder().values()
        found = {
            token.content
            for token in added
            if token.special or (token.content in literals and not token.content.isspace())
        }
        longest_first = sorted(found, key=lambda text: (-len(text), text))
        return cls(tokenizer, re.compile("|".join(map(re.escape, longest_first)) or "(?!)"))

    def first_in(self, value: object) -> str | None:
        """The first one in any text of a value (a JSON value, or a message's fields)."""
        return next((match.group() for text in _texts(value) if (match := self.pattern.search(text))), None)

    def marked(self, messages: Sequence[Message]) -> tuple[list[Message], str]:
        """The messages with a mark before and behind each control token, and the mark.

        Raises:
            RequestError: they hold every mark already.

        """
        fields = [message.model_dump() for message in messages]
        held = set().union(*(text for field in fields for text in _texts(field)))
        mark = next((mark for mark in _MARKS if mark not in held), None)
        if mark is None:
            raise RequestError(
                "request", found="all of U+FDD0 to U+FDEF", expected="text without them", fix="Remove one of them."
            )
        return [Message.model_validate(self._mark(field, mark)) for field in fields], mark

    def encode(self, text: str, mark: str) -> list[int]:
        """Tokens of a render of marked messages.

        Raises:
            RequestError: the tokenizer writes the token for its text, whatever is done.

        """
        either = f"(?:{re.escape(mark)}|{re.escape(json.dumps(mark)[1:-1])})"  # some templates write JSON in ASCII
        # Text, token, text, …; None for a mark that the template has parted from its other one.
        pieces = re.split(f"{either}({self.pattern.pattern}){either}|{either}", text)
        ids = list(self._encode(pieces[0]))
        for index, piece in enumerate(pieces[1:], start=1):
            if piece and index % 2:
                ids += self._encode_plain(piece)
            elif piece:
                ids += self._encode_behind(piece)
        return ids

    def _mark(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            return self.pattern.sub(lambda match: f"{mark}{match.group()}{mark}", value)
        if isinstance(value, dict):
            return {
                self._mark(key, mark): item if key in {"role", "type"} else self._mark(item, mark)
                for key, item in value.items()
            }
        return [self._mark(item, mark) for item in value] if isinstance(value, (list, tuple)) else value

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _encode_behind(self, text: str) -> list[int]:
        """Not as the beginning of a text, before which some tokenizers write a space."""
        line, ids = self._encode("\n"), self._encode(f"\n{text}")
        return ids[len(line) :] if ids[: len(line)] == line else self._encode(text)

    def _encode_plain(self, text: str) -> list[int]:
        line, ids = self._without_added("\n"), self._without_added(f"\n{text}")
        plain = ids[len(line) :] if ids[: len(line)] == line else self._without_added(text)
        if self.tokenizer.token_to_id(text) in plain:
            raise RequestError(
                "request",
                found=f"{text!r}, which is a control token to this tokenizer wherever it stands",
                expected="messages without it",
                fix="Remove it, or write it in other words.",
            )
        return plain

    def _without_added(self, text: str) -> list[int]:
        tokenizer = self.tokenizer
        normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        splits = tokenizer.pre_tokenizer.pre_tokenize_str(normal) if tokenizer.pre_tokenizer else [(normal, None)]
        return [token.id for split, _ in splits for token in tokenizer.model.tokenize(split)]


def _texts(value: object) -> Iterator[str]:
    """Every text in a value of lists and mappings, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
