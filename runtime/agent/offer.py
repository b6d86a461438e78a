"""Which of the bundle's tools can be called now: those that a server lists with the schema they were made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.tools.toolset import Tool


@dataclass(frozen=True)
class LiveTool:
    """A tool as its server lists it now. `unreadable` says why its schema cannot be read, if it cannot."""

    name: str
    tool: Tool | None
    read_only: bool = False  # the server's annotation: a hint
    unreadable: str = ""


@dataclass(frozen=True)
class Offer:
    """What a step chooses from.

    `tools` maps each toolset to the names that can be called; a toolset without any is absent. `notes` name what
    cannot be called and why, a line each.
    """

    tools: Mapping[str, frozenset[str]]
    read_only: frozenset[tuple[str, str]]  # (toolset, tool) that the server annotates as reading only
    notes: tuple[str, ...]


def offer(manifest: Manifest, live: Mapping[str, tuple[LiveTool, ...] | str]) -> Offer:
    """Compare the bundle's toolsets with what the servers list.

    Args:
        manifest: of the bundle.
        live: server's name → its tools, or why they are not known.

    """
    known = {entry.toolset.name: entry.toolset for entry in manifest.toolsets}
    tools: dict[str, frozenset[str]] = {}
    read_only: set[tuple[str, str]] = set()
    notes: list[str] = []
    for server, listed in live.items():
        if isinstance(listed, str):
            notes.append(f"{server}: {listed}")
        elif server not in known:
            notes.append(f"{server}: the bundle has no toolset of this name, so its tools are not offered")
        else:
            found = {tool.name: tool for tool in listed}
            exported = {tool.name: tool for tool in known[server].tools}
            faults = dict(_faults(exported, found))
            notes += [f"{server}.{name}: {why}" for name, why in faults.items()]
            usable = frozenset(exported.keys() - faults.keys())
            read_only |= {(server, name) for name in usable if found[name].read_only}
            if usable:
                tools[server] = usable
    notes += [f"{name}: no server of this name is connected" for name in known if name not in live]
    return Offer(tools, frozenset(read_only), tuple(notes))


def _faults(exported: Mapping[str, Tool], found: Mapping[str, LiveTool]) -> Iterator[tuple[str, str]]:
    """(tool, why it is not offered)."""
    for name, tool in exported.items():
        if name not in found:
            yield name, "the server no longer has it"
        elif (live := found[name].tool) is None:
            yield name, f"the server's schema cannot be read: {found[name].unreadable}"
        elif live.parameters != tool.parameters:
            yield name, "the server's schema is not the one that the bundle was made for; export the bundle again"
    for name in found.keys() - exported.keys():
        yield name, "new on the server; the bundle has no adapter for it"
