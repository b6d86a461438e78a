"""What the kit exports, its decoupled adapters, and what they are compared with: base, activated and joint ones."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.export.spec.parts import AdapterSpec, ToolsetSpec
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets

Method: TypeAlias = Literal["base", "joint", "decoupled", "activated"]
METHODS: Final[tuple[Method, ...]] = ("base", "decoupled", "activated")  # of the kit
COMPARED: Final[tuple[Method, ...]] = ("joint", "decoupled")  # of equally many samples


def spec(method: Method, mode: Mode, kit: Path = FOLDER) -> ExportSpec:
    """One export of both toolsets."""
    routing = kit / "adapters" / "toolset"
    return ExportSpec(
        base=kit / "base",
        toolset=AdapterSpec(path=routing) if method != "base" and routing.is_dir() else None,
        toolsets=tuple(_toolset(name, method, kit) for name in toolsets.NAMES),
        mode=mode,
    )


def trained(method: Method, kit: Path = FOLDER) -> bool:
    """Whether the kit has the method's adapters: joint and activated ones are made only to be compared with."""
    made = (adapter for name in toolsets.NAMES for adapter in _adapters(_toolset(name, method, kit)))
    return all(adapter.path.is_dir() for adapter in made)


def _toolset(name: str, method: Method, kit: Path) -> ToolsetSpec:
    toolset = toolsets.load(name).toolset
    own = kit / ("activated" if method == "activated" else "adapters") / name
    tools = [tool.name for tool in toolset.tools if tool.takes_arguments]
    selection = None if method == "base" else own / ("joint" if method == "joint" else "selection")
    arguments = {} if method == "base" else {tool: own / "arguments" / tool for tool in tools}
    if method == "joint":
        arguments = dict.fromkeys(tools, own / "joint")
    declared = next(entry.copied for entry in read_spec(FOLDER / "dualtune.yaml").toolsets if entry.name == name)
    return ToolsetSpec(
        name=name,
        description=toolset.description,
        tools=toolsets.servers_file(name),
        selection=AdapterSpec(path=selection) if selection else None,
        arguments={tool: AdapterSpec(path=path) for tool, path in arguments.items()} or None,
        copied=declared,
    )


def _adapters(toolset: ToolsetSpec) -> list[AdapterSpec]:
    selection = [toolset.selection] if toolset.selection else []
    return selection + (list(toolset.arguments.values()) if isinstance(toolset.arguments, dict) else [])
