"""Trajectories on disk: one conversation a line, `{"messages": [OpenAI-style …], "toolset": name}`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message


class _Line(Frozen):
    messages: tuple[Message, ...] = Field(min_length=2, max_length=limits.MESSAGES)
    toolset: str | None = None


@dataclass(frozen=True)
class Trajectory:
    """One conversation, and where it stands (`file:line`)."""

    where: str
    messages: tuple[Message, ...]
    toolset: str | None


def read_trajectories(path: Path, toolset: str | None = None) -> list[Trajectory]:
    """The conversations of a file; with `toolset`, those that name it.

    Raises:
        DataError: the file cannot be read, or a line is not a conversation of single calls; it names file and line.

    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(path), found=str(error), expected="a UTF-8 file of JSON lines", fix="Check the path."
        ) from None
    found = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        line = _line(text, where)
        if toolset is not None and line.toolset is None:
            fix = "Add it to the line, or leave the choice of a toolset out."
            raise DataError(where, found="no toolset", expected='"toolset": the name of one', fix=fix)
        if toolset is None or line.toolset == toolset:
            _check_turns(line.messages, where)
            found.append(Trajectory(where, line.messages, line.toolset))
    return found


def _line(text: str, where: str) -> _Line:
    expected = '{"messages": [two or more OpenAI-style messages], "toolset": optional name}'
    try:
        return _Line.model_validate(strict_json.loads(text))
    except strict_json.JsonError as error:
        raise DataError(where, found=str(error), expected="one JSON object a line", fix="Mend the line.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            where, found=f"{place}: {first['msg']}", expected=expected, fix="Mend or remove the line."
        ) from None


def _check_turns(messages: tuple[Message, ...], where: str) -> None:
    if messages[0].role == "assistant":
        raise DataError(
            where,
            found="an assistant's turn at the start",
            expected="a system or user message first",
            fix="Add the request that it answers.",
        )
    for number, message in enumerate(messages, start=1):
        if len(message.tool_calls) > 1:
            raise DataError(
                f"{where}, message {number}",
                found=f"{len(message.tool_calls)} calls in one turn",
                expected="at most one",
                fix="Write one turn a call, each with its result behind it.",
            )
