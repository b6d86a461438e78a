"""What a user asks: a text or OpenAI-style messages, and among which tools."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message, unread, user
from dualtune_edge.toolkit.prompts.turns import turn_faults, unknown_calls
from dualtune_edge.toolkit.validation import listing, nearest, validate

_LINE: Final = 80  # characters of a value in a message


class _Conversation(Frozen):
    messages: tuple[Message, ...]


def read_messages(request: str | Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """The conversation, whose last message is a user's or a tool's.

    Raises:
        RequestError: malformed messages, none or too many, one that nobody is to answer, a result that answers no call,
            or text that is not Unicode.

    """
    value = [user(request)] if isinstance(request, str) else request
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray, memoryview)):
        raise _refusal(f"{type(request).__name__} {_short(request)}")
    if not 0 < len(value) <= limits.MESSAGES:
        raise _refusal(f"{len(value):,} messages" if value else "no message")
    messages = validate(_Conversation, {"messages": list(value)}, where="request", error=RequestError).messages
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


def read_offered(
    manifest: Manifest, toolset: str | None, offered: Mapping[str, Collection[str]] | None
) -> Mapping[str, Collection[str]]:
    """The toolsets and tools to choose from.

    Args:
        manifest: the bundle's.
        toolset: the only one; None: any.
        offered: names of toolsets, and of their tools; None: all.

    Raises:
        RequestError: one is not in the bundle, or nothing is offered.

    """
    toolsets = [entry.toolset for entry in manifest.toolsets]
    known = {entry.name: frozenset(tool.name for tool in entry.tools) for entry in toolsets}
    offered = known if offered is None else offered
    if toolset is not None:
        _refuse_unknown("toolset", [toolset], offered)
        offered = {toolset: offered[toolset]}
    _refuse_unknown("offered", offered, known)
    for name, tools in offered.items():
        _refuse_unknown(f"offered, {name}", tools, known[name])
    if not offered:
        raise RequestError("offered", found="no toolset", expected=listing(known), fix="Offer at least one.")
    return offered


def refuse_options(
    *, min_probability: float, max_argument_tokens: int, date: object = None, on_overflow: object = None
) -> None:
    """Raise `RequestError` for options of a call that are none."""
    _refuse_date(date)
    if on_overflow is not None and not callable(on_overflow):
        raise RequestError("on_overflow", found=_short(on_overflow), expected="a function", fix="Leave it out.")
    if not _is_number(min_probability) or not 0 <= min_probability <= 1:
        expected = "a number from 0 to 1"
        raise RequestError(
            "min_probability", found=_short(min_probability), expected=expected, fix="Leave it out for 0."
        )
    if not _is_number(max_argument_tokens) or max_argument_tokens < 1 or max_argument_tokens % 1:
        raise RequestError(
            "max_argument_tokens", found=_short(max_argument_tokens), expected="a number of tokens", fix="Leave it out."
        )


def refuse_sampling(*, temperature: float, max_tokens: int, seed: int, date: object = None) -> None:
    """Raise `RequestError` for options of a text that are none."""
    _refuse_date(date)
    if not _is_number(temperature) or not 0 <= temperature < math.inf:
        expected = "a number from 0 on"
        raise RequestError("temperature", found=_short(temperature), expected=expected, fix="Leave it out for 0.")
    for name, value, least in (("max_tokens", max_tokens, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            expected = f"a whole number from {least} on"
            raise RequestError(name, found=_short(value), expected=expected, fix="Leave it out.")


def _refuse_date(date: object) -> None:
    if date is not None and not isinstance(date, dt.date):
        raise RequestError("date", found=_short(date), expected="a datetime", fix="Leave it out for today.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse_unknown(where: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise RequestError(where, found=_short(name), expected=listing(known), fix="Use one of these names.")
        if name not in known:
            fix = nearest(name, known)
            raise RequestError(where, found=f"the unknown name {name!r}", expected=listing(known), fix=fix)


def _refusal(found: str) -> RequestError:
    return RequestError(
        "request",
        found=found,
        expected=f"a text, or a list of 1 to {limits.MESSAGES:,} messages",
        fix="Pass what the user says, or the conversation so far.",
    )


def _short(value: object) -> str:
    """A value for a message, at most a line of it."""
    text = repr(value)
    return text if len(text) <= _LINE else f"{text[:_LINE]}…"


def _refuse_broken_text(message: Message, where: str) -> None:
    """Half of a surrogate pair is no character: neither templates nor tokenizers can write it."""
    try:
        message.model_dump_json()  # goes through every text of the message, those of arguments too
    except ValueError as error:  # pydantic's class of it is one
        found = "half of a surrogate pair" if "surrogate" in str(error) else str(error).splitlines()[0][:200]
        raise RequestError(where, found=found, expected="Unicode text", fix="Send it as UTF-8.") from None
