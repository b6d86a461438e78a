"""What is measured: conversations with the call that is meant, from a file or made out of the bundle's own tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, call, user
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, read_trajectories
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing, nearest

Item = TypeVar("Item")
MADE_UP: Final = "made-up request"  # begins the name of each that no file holds


@dataclass(frozen=True)
class Request:
    """A conversation and its gold call; `call` is None where no tool is needed. `where` names it in messages."""

    where: str
    messages: tuple[Message, ...]
    toolset: str
    call: FunctionCall | None


def read_requests(path: Path, manifest: Manifest, count: int) -> list[Request]:
    """`count` requests (fewer if there are fewer) of a file of conversations, evenly spread over it.

    Every turn of an assistant is a request: the messages before it, and what it calls. One of weight 0 is context only.

    Raises:
        DataError: the file cannot be read, holds no such turn, or names a toolset or tool that the bundle lacks.

    """
    found = [request for task in _tasks(path, manifest) for request in task]
    if not found:
        raise DataError(
            str(path), found="no turn of an assistant", expected="one or more to replay", fix="Add conversations."
        )
    return spread(found, count)


def made_requests(manifest: Manifest, count: int) -> list[Request]:
    """`count` requests, each for another tool as far as there are so many: its description, and values that fit.

    Raises:
        DataError: no tool has a schema that simple values fit.

    """
    picked = spread(_made_plan(manifest), count)
    return [_made(*picked[at % len(picked)], number=at) for at in range(count)]


def read_tasks(path: Path, manifest: Manifest, count: int) -> list[list[Request]]:
    """At most `count` conversations of a file, evenly spread over it: those with several turns of an assistant.

    Raises:
        DataError: as of `read_requests`.

    """
    return spread([task for task in _tasks(path, manifest) if len(task) > 1], count)


def made_task(manifest: Manifest) -> list[Request]:
    """One conversation: three calls, the third of the first one's tool, and an end without a call.

    Raises:
        DataError: as of `made_requests`.

    """
    picked = spread(_made_plan(manifest), 2)
    parts = [_made(*picked[at % len(picked)], number=at) for at in range(3)]
    messages = [user("; ".join(part.messages[0].content for part in parts))]
    task = []
    for part in parts:
        assert part.call is not None  # noqa: S101 - made requests call a tool
        task.append(replace(part, messages=tuple(messages)))
        messages += [call(part.call.name, part.call.arguments), Message(role="tool", content="done")]
    return [*task, Request("made-up end", tuple(messages), parts[-1].toolset, None)]


def fitting(tool: Tool, number: int) -> dict[str, Any] | None:
    """Arguments that the tool's schema takes, others for another `number`; None where simple values do not fit."""
    schema = tool.reading.schema
    required, properties = schema.get("required", []), schema.get("properties", {})
    for names in (list(properties), [name for name in properties if name in required]):
        arguments = {name: _value(name, properties[name], number) for name in names}
        if tool.reading.fault(arguments) is None:
            return arguments
    return None


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of them, evenly spread, in order."""
    if len(items) <= count:
        return list(items)
    return [items[at * len(items) // count] for at in range(count)]


def _tasks(path: Path, manifest: Manifest) -> Iterator[list[Request]]:
    """The requests of each conversation."""
    tools = {entry.toolset.name: {tool.name for tool in entry.toolset.tools} for entry in manifest.toolsets}
    for trajectory in read_trajectories(path):
        name = trajectory.toolset
        if name is None and len(tools) == 1:
            (name,) = tools
        if name not in tools:
            found = f"the toolset {name!r}" if name else "no toolset"
            fix = nearest(name or "", tools)
            raise DataError(trajectory.where, found=found, expected=listing(tools), fix=fix)
        yield list(_turns(trajectory, name, tools[name]))


def _turns(trajectory: Trajectory, toolset: str, tools: set[str]) -> Iterator[Request]:
    for index, message in enumerate(trajectory.messages):
        if message.role != "assistant" or message.weight == 0:  # context: a call that failed, or of another toolset
            continue
        where = f"{trajectory.where}, message {index + 1}"
        called = message.tool_calls[0].function if message.tool_calls else None
        if called and called.name not in tools:
            raise DataError(
                where,
                found=f"a call of {called.name!r}",
                expected=f"a tool of {toolset!r}",
                fix=nearest(called.name, tools),
            )
        if trajectory.messages[index - 1].role in {"user", "tool"}:  # others are nobody's to answer
            yield Request(where, trajectory.messages[:index], toolset, called)


def _made_plan(manifest: Manifest) -> list[tuple[str, Tool]]:
    """(toolset, tool) of every tool that made-up values fit.

    Raises:
        DataError: there is none.

    """
    plan = [
        (entry.toolset.name, tool)
        for entry in manifest.toolsets
        for tool in entry.toolset.tools
        if fitting(tool, 0) is not None
    ]
    if not plan:
        raise DataError(
            "the bundle's tools",
            found="no tool that made-up values fit",
            expected="one or more",
            fix="Give conversations: --requests FILE.",
        )
    return plan


def _made(toolset: str, tool: Tool, *, number: int) -> Request:
    arguments = fitting(tool, number) or {}
    said = ", ".join(f"{name} {value}" for name, value in arguments.items())
    text = f"{tool.description.split('. ')[0].strip() or tool.name} (number {number})"
    gold = FunctionCall(name=tool.name, arguments=arguments)
    return Request(f"{MADE_UP} {number + 1}", (user(f"{text}: {said}" if said else text),), toolset, gold)


def _value(name: str, schema: object, number: int) -> Any:
    """A plain value of a property's type; whether it fits is checked afterwards."""
    if not isinstance(schema, Mapping):
        return f"{name}-{number}"
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][number % len(schema[key])]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in {"integer", "number"}:
        low = schema.get("minimum", 1)
        return min(low + number % 7, schema.get("maximum", low + number % 7))
    values: dict[str, Any] = {"boolean": number % 2 == 0, "null": None, "object": {}}
    if kind == "array":
        return [_value(name, schema.get("items", {}), number)]
    return values.get(kind, f"{name}-{number}"[: schema.get("maxLength")])
