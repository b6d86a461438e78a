"""The user's own conversations for the comparison: JSON lines of requests, lists of messages, or conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from dualtune_edge.runtime.decode.conversation import read_messages
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.errors import DataError, RequestError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.prompts.trajectories import known_keys, passed_over, unread_keys
from dualtune_edge.toolkit.prompts.turns import single_calls
from dualtune_edge.toolkit.tools.toolset import Toolset
from dualtune_edge.toolkit.validation import listing, nearest, validate

_RECORDED: Final = "offered"  # by an agent's recorder: which tools could be called
_FORMS: Final = 'a text, a list of OpenAI-style messages, or {"messages": […], "toolset": optional name}'


class _Conversation(Frozen):
    messages: tuple[Message, ...] = Field(min_length=1, max_length=limits.MESSAGES)
    toolset: str | None = None


@dataclass(frozen=True)
class Case:
    """A conversation that waits for the assistant. Where toolset or tool is None, the reference chooses.

    `call`: the one that the file has there.
    """

    messages: tuple[Message, ...]
    toolset: str | None
    tool: str | None
    call: FunctionCall | None = None


@dataclass(frozen=True)
class Calibration:
    """The cases of a file, and in words what of its lines is not read."""

    cases: tuple[Case, ...] = ()
    warnings: tuple[str, ...] = ()


def read_calibration(path: Path, toolsets: Sequence[Toolset], no_tool: str) -> Calibration:
    """The cases of a file: one for a line, or one for each of the assistant's turns in it.

    Args:
        path: JSON lines in UTF-8.
        toolsets: of the export; with one, lines need not name it.
        no_tool: the name that stands for calling no tool.

    Raises:
        DataError: the file cannot be read or is empty; or a line has none of the three forms, or names a toolset or
            tool that is not exported.

    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(str(path), str(error), "a UTF-8 file of JSON lines", "Check the path.") from None
    by_name = {toolset.name: toolset for toolset in toolsets}
    cases: list[Case] = []
    unread: list[tuple[str, ...]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            asked = _asked(line, where)
            conversation = validate(_Conversation, _read(asked), where=where, error=DataError)
            cases += _cases(conversation, where, by_name, no_tool)
            unread.append(unread_keys(asked, _Conversation.model_fields))
    if not cases:
        raise _refusal(str(path), "no line", _FORMS, "Add what users say, or leave the file out.")
    return Calibration(tuple(cases), tuple(f"{path}: {sentence}" for sentence in passed_over(unread)))


def _cases(conversation: _Conversation, where: str, toolsets: Mapping[str, Toolset], no_tool: str) -> Iterator[Case]:
    toolset = conversation.toolset or (next(iter(toolsets)) if len(toolsets) == 1 else None)
    if toolset is not None and toolset not in toolsets:
        raise _refusal(where, f"the toolset {toolset!r}", listing(toolsets), nearest(toolset, toolsets))
    messages = single_calls(conversation.messages)
    for index, message in enumerate(messages):
        if message.role == "assistant":
            call = message.tool_calls[0].function if message.tool_calls else None
            tool = call.name if call else no_tool
            _check_tool(tool, where, [toolsets[toolset]] if toolset else toolsets.values(), no_tool)
            yield Case(_waiting(messages[:index], where), toolset, tool, call)
    if messages[-1].role != "assistant":
        yield Case(_waiting(messages, where), toolset, None)


def _asked(line: str, where: str) -> dict[str, Any]:
    """A line as an object, in whichever form it is written."""
    try:
        value = strict_json.loads(line)
    except strict_json.JsonError as error:
        raise _refusal(where, str(error), _FORMS, "Correct the line.") from None
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return {"messages": value}
    if isinstance(value, str):
        return {"messages": [{"role": "user", "content": value}]}
    raise _refusal(where, f"a JSON {type(value).__name__}", _FORMS, "Correct the line.")


def _read(asked: dict[str, Any]) -> dict[str, Any]:
    """Without what only a recorded run has, and what trainers write more."""
    return {key: value for key, value in known_keys(asked).items() if key != _RECORDED}


def _waiting(messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    try:
        return read_messages(messages)
    except RequestError as error:
        raise _refusal(f"{where}, {error.where}", error.found, error.expected, error.fix) from None


def _check_tool(tool: str, where: str, toolsets: Iterable[Toolset], no_tool: str) -> None:
    known = [no_tool, *(tool.name for toolset in toolsets for tool in toolset.tools)]
    if tool not in known:
        raise _refusal(where, f"a call of {tool!r}", listing(known), nearest(tool, known))


def _refusal(where: str, found: str, expected: str, fix: str) -> DataError:
    return DataError(where, found=found, expected=expected, fix=fix)
