"""What a user asks: a text, or OpenAI-style messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import Field

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message, unread, user
from dualtune_edge.toolkit.prompts.turns import turn_faults, unknown_calls
from dualtune_edge.toolkit.validation import validate


class _Conversation(Frozen):
    messages: tuple[Message, ...] = Field(min_length=1, max_length=limits.MESSAGES)


def read_messages(request: str | Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """The conversation, whose last message is a user's or a tool's.

    Raises:
        RequestError: malformed messages, none or too many, one that nobody is to answer, a result that answers no call,
            or text that is not Unicode.

    """
    value = [user(request)] if isinstance(request, str) else list(request)
    messages = validate(_Conversation, {"messages": value}, where="request", error=RequestError).messages
    if messages[-1].role not in {"user", "tool"}:
        raise RequestError(
            "request, last message",
            found=f"one of role {messages[-1].role!r}",
            expected="the user's, or a tool's result",
            fix="Add what is to be answered.",
        )
    for number, message in enumerate(messages):
        _refuse_broken_text(message, f"request, messages.{number}")
    for fault in turn_faults(messages):
        where = f"request, messages.{fault.index}"
        raise RequestError(where, found=fault.found, expected=fault.expected, fix=fault.fix)
    return messages


def notes(
    request: str | Sequence[Message | Mapping[str, Any]], messages: Sequence[Message], tools: Collection[str]
) -> tuple[str, ...]:
    """What of a request is not read, and what its history calls that is no tool.

    Args:
        request: as it came.
        messages: as it was read.
        tools: names of all tools of the bundle.

    """
    keys = () if isinstance(request, str) else (key for message in request for key in unread(message))
    return (
        *(f"the messages' {key} are not read" for key in dict.fromkeys(keys)),
        *(f"the conversation calls {name!r}, which is no tool here" for name in unknown_calls(messages, tools)),
    )


def _refuse_broken_text(message: Message, where: str) -> None:
    """Half of a surrogate pair is no character: neither templates nor tokenizers can write it."""
    try:
        message.model_dump_json()  # goes through every text of the message, those of arguments too
    except ValueError as error:  # pydantic's class of it is one
        raise RequestError(
            where, found=str(error).splitlines()[0][:200], expected="Unicode text", fix="Send it as UTF-8."
        ) from None
