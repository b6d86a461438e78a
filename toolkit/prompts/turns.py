"""What the turns of a conversation say of each other: whose result answers which call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from dualtune_edge.toolkit.prompts.messages import Message


@dataclass(frozen=True)
class TurnFault:
    """What is wrong with a turn; the caller makes its own `EdgeError` of it. `index` counts messages from 0."""

    index: int
    found: str
    expected: str
    fix: str


def turn_faults(messages: Sequence[Message]) -> Iterator[TurnFault]:
    """Results that answer no call, or one that was answered."""
    known, awaited = set[str](), Counter[str]()
    answering = False  # whether the message stands behind an assistant's calls, and results of these
    for index, message in enumerate(messages):
        if message.role != "tool":
            answering = bool(message.tool_calls)
            ids = [call.id for call in message.tool_calls if call.id is not None]
            known.update(ids)
            awaited.update(ids)
        elif message.tool_call_id is None and not answering:
            fix = "Put the assistant's message with the call before it."
            yield TurnFault(index, "a tool's result, and no call before it", "a call that it answers", fix)
        elif message.tool_call_id is not None and message.tool_call_id not in known:
            listed = f"one of {', '.join(map(repr, sorted(known)))}" if known else "none: no call before it has an id"
            fix = "Give the result the id of its call, or neither of them one."
            yield TurnFault(index, f"the tool_call_id {message.tool_call_id!r}", f"the id of a call, {listed}", fix)
        elif message.tool_call_id is not None and not awaited[message.tool_call_id]:
            found = f"a further result of the call {message.tool_call_id!r}"
            yield TurnFault(index, found, "one result for each call", "Put its parts into one message.")
        elif message.tool_call_id is not None:
            awaited[message.tool_call_id] -= 1


def unknown_calls(messages: Sequence[Message], tools: Collection[str]) -> tuple[str, ...]:
    """Names that the conversation calls and that are no tools, each once."""
    called = (call.function.name for message in messages for call in message.tool_calls)
    return tuple(dict.fromkeys(name for name in called if name not in tools))


def single_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with several calls of one turn as several turns, each with its result behind it.

    A result belongs to the call of its id, or by its order to the next one.
    """
    found: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if len(message.tool_calls) < 2:
            found.append(message)
            continue
        results: list[Message] = []
        while at < len(messages) and messages[at].role == "tool":
            results.append(messages[at])
            at += 1
        found += _parted(message, results)
    return tuple(found)


def _parted(message: Message, results: list[Message]) -> Iterator[Message]:
    for number, call in enumerate(message.tool_calls):
        said = {"content": "", "reasoning_content": None, "reasoning": None, "thinking": None} if number else {}
        yield message.model_copy(update={"tool_calls": (call,), **said})
        own = [result for result in results if call.id is not None and result.tool_call_id == call.id]
        own = own[:1] or [result for result in results if result.tool_call_id is None][:1]
        for result in own:
            results.remove(result)
            yield result
    yield from results
