"""Conversations longer than the model's context, and how their longest results are shortened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tokenizers import Encoding, Tokenizer

from dualtune_edge.runtime.decode.conversation import read_messages
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.messages import Message

ROOM: Final = 256  # tokens of the context that are kept free for the answer
_MARK: Final = 32  # tokens of the line that says what is left out
_SHORTEST: Final = 32  # tokens that stay of a result
_WIDTH: Final = 64  # characters, as many as a long token has: of a huge text only the two ends are encoded


@dataclass(frozen=True)
class Overflow:
    """A prompt that is too long: `tokens` of at most `limit`. `tokenizer`: the base's."""

    messages: tuple[Message, ...]
    tokens: int
    limit: int
    tokenizer: Tokenizer


OnOverflow: TypeAlias = Callable[[Overflow], Sequence[Message | Mapping[str, Any]]]


def shortened_by(on_overflow: OnOverflow, overflow: Overflow) -> tuple[tuple[Message, ...], str]:
    """What `on_overflow` makes of a conversation, and a note of it for the result.

    Raises:
        RequestError: these are no messages.

    """
    shorter = read_messages(on_overflow(overflow))
    before, after = (sum(len(message.content) for message in turns) for turns in (overflow.messages, shorter))
    return shorter, (
        f"on_overflow: a prompt of {overflow.tokens:,} tokens was too long, and the conversation was shortened from "
        f"{before:,} to {after:,} characters in {len(shorter)} of {len(overflow.messages)} messages"
    )


def shorten_results(overflow: Overflow) -> tuple[Message, ...]:
    """The conversation with its longest tool result shortened, and the next longest where that is not enough.

    Beginning and end of a result stay, and a line in between says how much is left out.

    Raises:
        RequestError: shorter results are not enough.

    """
    messages, excess = list(overflow.messages), overflow.tokens - overflow.limit
    sizes = {
        number: len(overflow.tokenizer.encode(message.content, add_special_tokens=False).ids)
        for number, message in enumerate(messages)
        if message.role == "tool"
    }
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        most = max(sizes[number] - excess - _MARK, _SHORTEST)
        if excess <= 0 or most + _MARK >= sizes[number]:
            break
        text, _ = shorten(messages[number].content, most, overflow.tokenizer)
        messages[number] = messages[number].model_copy(update={"content": text})
        excess -= sizes[number] - most - _MARK
    if excess > 0:
        raise RequestError(
            "request",
            found=f"{overflow.tokens:,} tokens, {excess:,} too many with the tools' results shortened",
            expected=f"at most {overflow.limit:,}",
            fix="Shorten the conversation, or offer fewer tools.",
        )
    return tuple(messages)


def shorten(text: str, most_tokens: int, tokenizer: Tokenizer) -> tuple[str, int]:
    """The text within about `most_tokens` tokens, and the number of characters that are left out of it.

    The first two thirds of the tokens and the last third stay; cuts are at borders of tokens.
    """

    def encode(part: str) -> Encoding:
        return tokenizer.encode(part, add_special_tokens=False)

    if len(text) <= most_tokens * _WIDTH and len(encode(text).ids) <= most_tokens:
        return text, 0
    head, tail = most_tokens - most_tokens // 3, most_tokens // 3
    beginning, end = text[: head * _WIDTH], text[max(0, len(text) - tail * _WIDTH) :]
    first = ([0] + [stop for _, stop in encode(beginning).offsets[:head]])[-1]
    kept = encode(end).offsets[-tail:] if tail else []
    last = len(text) - len(end) + kept[0][0] if kept else len(text)
    left_out = last - first
    return f"{text[:first]}\n[… {left_out} of {len(text)} characters are left out here …]\n{text[last:]}", left_out
