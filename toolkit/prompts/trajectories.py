"""Trajectories on disk: one conversation a line, `{"messages": [OpenAI-style …], "toolset": name}`.

Trainers write more into a line: the tools of the request, the model that answered. Such keys are passed over, and said.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message, unread
from dualtune_edge.toolkit.prompts.turns import single_calls, turn_faults
from dualtune_edge.toolkit.validation import validate

_KEYS: Final = ("messages", "toolset", "offered")
_ALIKE: Final = 0.85  # of a key, from which on it is thought to be one of these misspelt


class _Line(Frozen):
    messages: tuple[Message, ...] = Field(min_length=2, max_length=limits.MESSAGES)
    toolset: str | None = None
    offered: tuple[dict[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Trajectory:
    """One conversation of single calls, and where it stands (`file:line`).

    `tools`: names of the tools that the line lists; None: it lists none. `unread`: its keys that are passed over.
    `offered`: toolset → the tools that could be called, for each choice that was made; a recorded run has it.
    """

    where: str
    messages: tuple[Message, ...]
    toolset: str | None
    tools: frozenset[str] | None = None
    unread: tuple[str, ...] = ()
    offered: tuple[dict[str, tuple[str, ...]], ...] = ()


def read_trajectories(path: Path, toolset: str | None = None) -> list[Trajectory]:
    """The conversations of a file; with `toolset`, those that name it. A turn of several calls becomes several turns.

    Raises:
        DataError: the file cannot be read, or a line is not a conversation; it names file and line.

    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(path), found=str(error), expected="a UTF-8 file of JSON lines", fix="Check the path."
        ) from None
    numbered = enumerate(lines, start=1)
    trajectories = [parse_trajectory(text, f"{path}:{number}") for number, text in numbered if text.strip()]
    return trajectories if toolset is None else of_toolset(trajectories, toolset)


def of_toolset(trajectories: Iterable[Trajectory], toolset: str) -> list[Trajectory]:
    """Those that name the toolset.

    Raises:
        DataError: one names none.

    """
    found = []
    for trajectory in trajectories:
        if trajectory.toolset is None:
            fix = "Add it to the line, or leave the choice of a toolset out."
            raise DataError(trajectory.where, found="no toolset", expected='"toolset": the name of one', fix=fix)
        if trajectory.toolset == toolset:
            found.append(trajectory)
    return found


def passed_over(lines: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """What of the lines is not read, a sentence a key. `lines`: the `unread_keys` of each."""
    counts = Counter(key for keys in lines for key in keys)
    return tuple(f"the key {key!r} of {count} lines is not read" for key, count in counts.items())


def unread_keys(line: Mapping[str, Any], read: Collection[str] = _KEYS) -> tuple[str, ...]:
    """The keys of a line and of its messages that are passed over, each once. `read`: the line's that are not."""
    keys = [key for key, value in line.items() if key not in read and value is not None]
    keys += [key for message in line["messages"] for key in unread(message)]
    return tuple(dict.fromkeys(keys))


def known_keys(line: dict[str, Any]) -> dict[str, Any]:
    """A line without the keys that are passed over; one that may be a known key misspelt stays, and is refused."""
    return {key: value for key, value in line.items() if difflib.get_close_matches(key, _KEYS, n=1, cutoff=_ALIKE)}


def parse_trajectory(text: str, where: str) -> Trajectory:
    """The conversation of one line; `where` names it in errors.

    Raises:
        DataError: it is none.

    """
    try:
        value = strict_json.loads(text)
    except strict_json.JsonError as error:
        raise DataError(where, found=str(error), expected="one JSON object a line", fix="Correct the line.") from None
    line = validate(_Line, known_keys(value) if isinstance(value, dict) else value, where=where, error=DataError)
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    _check_turns(line.messages, where)
    return Trajectory(
        where,
        single_calls(line.messages),
        line.toolset,
        tools=_names(given.get("tools")),
        unread=unread_keys(given),
        offered=line.offered,
    )


def _names(tools: Any) -> frozenset[str] | None:
    """Names of the tools that a line lists, in OpenAI's form or flat."""
    if not isinstance(tools, list):
        return None
    functions = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)]
    return frozenset(str(function.get("name")) for function in functions if isinstance(function, dict))


def _check_turns(messages: tuple[Message, ...], where: str) -> None:
    if messages[0].role == "assistant":
        raise DataError(
            where,
            found="an assistant's turn at the start",
            expected="a system or user message first",
            fix="Add the request that it answers.",
        )
    for fault in turn_faults(messages):
        raise DataError(
            f"{where}, message {fault.index + 1}", found=fault.found, expected=fault.expected, fix=fault.fix
        )
