"""What the kit exports: its decoupled adapters, and for comparison the joint ones and the bare base."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from dualtune_edge.export.plan.spec import AdapterSpec, ExportSpec, ToolsetSpec, read_spec
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training import toolsets

Method: TypeAlias = Literal["base", "joint", "decoupled"]
METHODS: Final[tuple[Method, ...]] = ("base", "joint", "decoupled")


def spec(method: Method, mode: Mode, kit: Path = FOLDER) -> ExportSpec:
    """One export of both toolsets."""
    routing = kit / "adapters" / "toolset"
    return ExportSpec(
        base=kit / "base",
        toolset=AdapterSpec(path=routing) if method == "decoupled" and routing.is_dir() else None,
        toolsets=tuple(_toolset(name, method, kit) for name in toolsets.NAMES),
        mode=mode,
    )


def trained(method: Method, kit: Path = FOLDER) -> bool:
    """Whether the kit has the method's adapters; joint ones are only there to be compared with."""
    return method != "joint" or all((kit / "adapters" / name / "joint").is_dir() for name in toolsets.NAMES)


def _toolset(name: str, method: Method, kit: Path) -> ToolsetSpec:
    toolset = toolsets.load(name).toolset
    own = kit / "adapters" / name
    tools = [tool.name for tool in toolset.tools if tool.takes_arguments]
    selection = {"base": None, "joint": own / "joint", "decoupled": own / "selection"}[method]
    arguments = {
        "base": {},
        "joint": dict.fromkeys(tools, own / "joint"),
        "decoupled": {tool: own / "arguments" / tool for tool in tools},
    }[method]
    declared = next(entry.copied for entry in read_spec(FOLDER / "dualtune.yaml").toolsets if entry.name == name)
    return ToolsetSpec(
        name=name,
        description=toolset.description,
        tools=toolsets.servers_file(name),
        selection=AdapterSpec(path=selection) if selection else None,
        arguments={tool: AdapterSpec(path=path) for tool, path in arguments.items()} or None,
        copied=declared,
    )
