"""A file of trajectories against the tools: faults, coverage, lines that stand twice, and leaks from another part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dualtune_edge.export.data.lines import Line, turns
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge.toolkit.prompts.trajectories import Trajectory
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing


class Fault(Frozen):
    """Something that `finetune` refuses, or learns wrongly."""

    where: str
    found: str


class PropertyCoverage(Frozen):
    """An argument of a tool: in how many of its calls it is given, and with how many values."""

    name: str
    required: bool
    given: int
    values: int


class ToolCoverage(Frozen):
    """A tool, and how often it is called with arguments that it takes, where that is learnt."""

    toolset: str
    tool: str
    calls: int
    properties: tuple[PropertyCoverage, ...]


class Pair(Frozen):
    """A line, and the one that has the same before it or in the other file."""

    where: str
    other: str


class DataCheck(Frozen):
    """What `data check --json` prints.

    `duplicates` are lines that say the same in all. `leaks` are lines whose first request stands in the other file too.
    """

    lines: int
    turns: int  # of the assistant
    calls: int
    faults: tuple[Fault, ...]
    tools: tuple[ToolCoverage, ...]
    duplicates: tuple[Pair, ...]
    leaks: tuple[Pair, ...]


def check(lines: list[Line], toolsets: Mapping[str, Mapping[str, Tool]], other: Sequence[Line] = ()) -> DataCheck:
    """Check lines.

    Args:
        lines: of one file.
        toolsets: toolset → name → tool; an empty toolset's name is for every line.
        other: the lines of a file that must not have the same requests.

    """
    # A line of the other file that cannot be read may have a request of these.
    faults = [Fault(where=line.where, found=line.fault) for line in (*lines, *other) if line.fault]
    calls: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line, trajectory in turns(lines):
        toolset = "" if "" in toolsets else trajectory.toolset
        if toolset is None or toolset not in toolsets:
            faults.append(Fault(where=line.where, found=f"toolset {toolset!r}; expected {listing(toolsets)}"))
            continue
        for index, message in enumerate(trajectory.messages):
            for call in message.tool_calls:
                if message.weight == 0:
                    continue  # it is context, and not learnt
                if why := _fault(call.function, toolsets[toolset]):
                    faults.append(Fault(where=f"{line.where}, message {index + 1}", found=why))
                else:
                    calls.setdefault((toolset, call.function.name), []).append(call.function.arguments)
    assistants = [
        message for _, trajectory in turns(lines) for message in trajectory.messages if message.role == "assistant"
    ]
    return DataCheck(
        lines=len(lines),
        turns=len(assistants),
        calls=sum(bool(message.tool_calls) for message in assistants),
        faults=tuple(faults),
        tools=tuple(_coverage(toolsets, calls)),
        duplicates=tuple(_duplicates(lines)),
        leaks=tuple(_leaks(lines, other)),
    )


def _fault(call: FunctionCall, tools: Mapping[str, Tool]) -> str:
    """Why a call cannot be learnt; empty where it can."""
    if call.name not in tools:
        return f"a call of {call.name!r}, which is no tool"
    fault = tools[call.name].reading.fault(call.arguments)
    return f"a call of {call.name!r} with arguments that its schema refuses: {fault}" if fault else ""


def _coverage(
    toolsets: Mapping[str, Mapping[str, Tool]], calls: Mapping[tuple[str, str], list[dict[str, Any]]]
) -> Iterator[ToolCoverage]:
    for toolset, tools in toolsets.items():
        for name, tool in tools.items():
            made = calls.get((toolset, name), [])
            schema = tool.reading.schema
            yield ToolCoverage(
                toolset=toolset,
                tool=name,
                calls=len(made),
                properties=tuple(
                    _property(key, key in schema.get("required", ()), made) for key in schema.get("properties", {})
                ),
            )


def _property(name: str, required: bool, calls: list[dict[str, Any]]) -> PropertyCoverage:  # noqa: FBT001 - a value
    values = [json.dumps(call[name], sort_keys=True) for call in calls if name in call]
    return PropertyCoverage(name=name, required=required, given=len(values), values=len(Counter(values)))


def _duplicates(lines: Sequence[Line]) -> Iterator[Pair]:
    first: dict[str, str] = {}
    for line in lines:
        key = _said(line.trajectory) if line.trajectory else line.text
        if key in first:
            yield Pair(where=line.where, other=first[key])
        first.setdefault(key, line.where)


def _said(trajectory: Trajectory) -> str:
    messages = [message.model_dump(exclude_none=True) for message in trajectory.messages]
    return json.dumps([trajectory.toolset, messages], sort_keys=True)


def _leaks(lines: Sequence[Line], other: Sequence[Line]) -> Iterator[Pair]:
    known = {line.request: line.where for line in reversed(other)}
    for line in lines:
        if line.request in known:
            yield Pair(where=line.where, other=known[line.request])
