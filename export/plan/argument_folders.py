"""The folders of a toolset's argument adapters: those that a spec names, or those in a folder of folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.export.spec.parts import AdapterSpec, ToolsetSpec
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.tools.toolset import Tool


@dataclass(frozen=True)
class ArgumentFolders:
    """Tool → its argument adapter, in the order of the tools; `passed_over`: why other folders are not used."""

    adapters: Mapping[str, AdapterSpec]
    passed_over: tuple[str, ...] = ()


def argument_folders(spec: ToolsetSpec, tools: Iterable[Tool]) -> ArgumentFolders:
    """Those that the spec names one by one, or those in its folder.

    Raises:
        SpecError: an adapter for no tool, for a tool without arguments, or a second one for a tool.

    """
    by_name = {tool.name: tool for tool in tools}
    where = f"toolset {spec.name!r}, arguments"
    if isinstance(spec.arguments, Path):
        return _adapters_in(spec.arguments, by_name, where)
    given = spec.arguments or {}
    for name in given:
        if name not in by_name:
            raise _no_such_tool(where, name, by_name)
        if not by_name[name].takes_arguments:
            raise _no_arguments(where, name)
    return ArgumentFolders({name: given[name] for name in by_name if name in given})


def _adapters_in(folder: Path, tools: Mapping[str, Tool], where: str) -> ArgumentFolders:
    """The adapters of a folder of folders, each named after its tool (plainly, or as `safe_name` writes it).

    A trainer's output holds more: AgentFlux's has the selection's adapter beside the tools', and one for a tool without
    arguments.

    Raises:
        SpecError: an adapter itself, two adapters for one tool, or none for any tool.

    """
    if (folder / "adapter_config.json").exists():
        raise SpecError(
            where,
            found=f"{folder}, an adapter itself",
            expected="a folder that holds one adapter folder a tool, named after the tool",
            fix="Name the folder above it.",
        )
    written = {safe_name(tool): tool for tool in tools} | {tool: tool for tool in tools}
    result: dict[str, AdapterSpec] = {}
    others: dict[str, SpecError] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        tool = written.get(path.name)
        if tool is None:
            others[path.name] = _no_such_tool(where, path.name, tools)
            continue
        if not tools[tool].takes_arguments:
            others[path.name] = _no_arguments(where, tool)
            continue
        if tool in result:
            raise SpecError(
                where,
                found=f"two adapters for {tool!r}: {result[tool].path.name} and {path.name}",
                expected="one adapter a tool",
                fix="Remove one of the folders.",
            )
        result[tool] = AdapterSpec(path=path)
    for error in others.values() if not result else ():
        raise error
    passed_over = [f"{folder / name}: {error.found}. {error.fix}" for name, error in others.items()]
    return ArgumentFolders({name: result[name] for name in tools if name in result}, tuple(passed_over))


def _no_such_tool(where: str, name: str, tools: Iterable[str]) -> SpecError:
    known = list(dict.fromkeys(tools))
    near = difflib.get_close_matches(name, known, n=1)
    return SpecError(
        where,
        found=f"an adapter for {name!r}, which is no tool of this toolset",
        expected=f"one of {', '.join(known)}",
        fix=f"Did you mean {near[0]!r}?" if near else "Remove it, or add the tool to the tool list.",
    )


def _no_arguments(where: str, name: str) -> SpecError:
    return SpecError(
        where,
        found=f"an adapter for {name!r}, a tool that takes no arguments",
        expected="adapters for tools that take some",
        fix="Remove the adapter; the tool is called without that stage.",
    )
