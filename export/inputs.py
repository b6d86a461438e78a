"""All that an export reads, read and checked before any work begins: the base, the tools, the adapters, the profile."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from dualtune_edge.export.adapter import AdapterWeights, read_adapter
from dualtune_edge.export.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.modules import Extra
from dualtune_edge.export.optimum_graph.description import Decoder
from dualtune_edge.export.optimum_graph.read import read_folder
from dualtune_edge.export.own_template import TemplateText
from dualtune_edge.export.recipes import AUTO, RECIPES, candidates
from dualtune_edge.export.spec import AdapterSpec, ExportSpec, TemplatesSpec, ToolsetSpec
from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.schema import HardwareProfile, KvType
from dualtune_edge.toolkit.errors import AdapterError, SpecError
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.manifest import ADAPTERS_DIR, MERGED_DIR, MODEL_DIR, STATES_DIR, Kind, Mode, Quantization
from dualtune_edge.toolkit.parity import PARITY
from dualtune_edge.toolkit.tool_files import read_tools
from dualtune_edge.toolkit.tools import Tool, Toolset


@dataclass(frozen=True)
class AdapterSource:
    """An adapter that was read and found good. Its tensors are read again when they are written.

    Holding the tensors of forty adapters would take the memory of another base model.
    """

    name: str
    kind: Kind
    toolset: str
    tool: str | None
    mode: Mode
    folder: Path
    rank: int
    scale: float
    sha256: str
    template: TemplateText | None
    extras: frozenset[Extra]  # slots that it needs besides those of the layers' modules
    plain: bool  # LoRA and nothing else

    def weights(self, checkpoint: Checkpoint) -> AdapterWeights:
        """Read the tensors.

        Raises:
            AdapterError: the folder has changed since it was checked.

        """
        weights = read_adapter(self.folder, checkpoint, self.mode)
        if weights.sha256 != self.sha256:
            raise AdapterError(
                str(self.folder),
                found=f"content {weights.sha256[:12]}…, which was {self.sha256[:12]}… a moment ago",
                expected="an adapter that stays as it is during the export",
                fix="Wait until its training has ended, then export again.",
            )
        return weights


@dataclass(frozen=True)
class ToolsetSource:
    """A toolset with its adapters; `arguments` holds those of the tools that have one."""

    toolset: Toolset
    selection: AdapterSource | None
    arguments: Mapping[str, AdapterSource]
    templates: TemplatesSpec


@dataclass(frozen=True)
class Place:
    """Where in the bundle a model's files go: folders, and the file of its comparison with PEFT."""

    model: str = MODEL_DIR
    adapters: str = ADAPTERS_DIR
    merged: str = MERGED_DIR
    states: str = STATES_DIR
    parity: str = PARITY

    @classmethod
    def below(cls, folder: str) -> Place:
        """All in a folder of the model's own, laid out as the bundle is."""
        return cls(*(f"{folder}/{name}" for name in astuple(cls())))


@dataclass(frozen=True)
class Inputs:
    """Everything read. `warnings` say what is exported otherwise than one might expect.

    A bundle of several models has one of these for each: `with_modes`, and `variants`, derive the others.
    """

    checkpoint: Checkpoint
    toolsets: tuple[ToolsetSource, ...]
    quantization: Quantization
    profile: HardwareProfile | None  # the first with a dynamic graph: the primary model is built for it
    profiles: tuple[HardwareProfile, ...]
    profile_files: tuple[bytes, ...]  # TOML of each
    no_tool: str
    toolset_template: Path | None
    warnings: tuple[str, ...]
    decoder: Decoder | None = None  # read of Optimum's graph; None: the graph is the builder's
    place: Place = Place()

    @property
    def adapters(self) -> tuple[AdapterSource, ...]:
        """Every adapter, a toolset's selection first."""
        return tuple(
            adapter
            for source in self.toolsets
            for adapter in (source.selection, *source.arguments.values())
            if adapter is not None
        )

    @property
    def kv_type(self) -> KvType:
        """Of the KV cache: the profile's choice."""
        return self.profile.kv_type if self.profile else "float32"

    @property
    def transposed_slots(self) -> bool:
        """How A and B are stored in every model of the bundle (`add_slots`): not transposed for arm64 alone."""
        return not self.profiles or any(profile.architecture != "arm64" for profile in self.profiles)


def read_inputs(spec: ExportSpec) -> Inputs:
    """Read and check all that the spec names.

    Raises:
        ProfileError: the profile is unknown or malformed.
        ToolsError: a tool list or schema cannot be used.
        CheckpointError: the base cannot be exported.
        AdapterError: an adapter cannot be used exactly as it is.
        SpecError: an adapter for no tool, two for one tool, or names that collide.
        GraphError: the graph by Optimum is not the base's, or not wholly recognized.

    """
    _refuse_unjudged(spec)
    files = tuple(map(catalog.read, spec.profiles))
    profiles = tuple(catalog.parse(data, where=name) for data, name in zip(files, spec.profiles, strict=True))
    _refuse_double_profiles(profiles)
    profile = next((each for each in profiles if each.graph.form == "dynamic"), None)
    if spec.graph and (static := [each.name for each in profiles if each.graph.form != "dynamic"]):
        raise SpecError(
            "graph",
            found=f"a graph by Optimum, and {static[0]!r}, a profile whose static graph is written out anew",
            expected="profiles with dynamic graphs",
            fix="Leave out one of them.",
        )
    checkpoint = read_checkpoint(spec.base)
    toolsets = _toolsets(spec, checkpoint, mode_for(spec, profile))
    inputs = Inputs(
        checkpoint=checkpoint,
        toolsets=toolsets,
        quantization=quantization_for(spec, profile),
        profile=profile,
        profiles=profiles,
        profile_files=files,
        no_tool=spec.no_tool,
        toolset_template=spec.toolset_template,
        warnings=(*_profile_warnings(profiles), *_warnings(toolsets)),
        decoder=read_folder(spec.graph, checkpoint) if spec.graph else None,
    )
    _refuse_collisions(inputs)
    return inputs


def with_modes(inputs: Inputs, spec: ExportSpec, default: Mode) -> Inputs:
    """The same with adapters that say nothing of their mode held in this one.

    Raises:
        AdapterError: an adapter cannot be held so.

    """
    if default == mode_for(spec, inputs.profile):
        return inputs
    return replace(inputs, toolsets=_toolsets(spec, inputs.checkpoint, default))


def mode_for(spec: ExportSpec, profile: HardwareProfile | None) -> Mode:
    """How adapters that say nothing of it are held: as the spec says, or else the profile."""
    return spec.mode or (profile.mode if profile else None) or "external"


def quantization_for(spec: ExportSpec, profile: HardwareProfile | None) -> Quantization:
    """How a dynamic graph's weights are stored, or with `auto` the first way to be tried."""
    return quantizations_for(spec, profile)[0]


def quantizations_for(spec: ExportSpec, profile: HardwareProfile | None) -> tuple[Quantization, ...]:
    """How a dynamic graph's weights may be stored: as the spec says, and in what it leaves out as the profile does.

    Raises:
        SpecError: it does not go together, or `auto` has nothing to choose by.

    """
    if spec.quantization == AUTO and spec.parity is None:
        raise SpecError(
            "quantization",
            found="`auto`, and no comparison with PEFT",
            expected="a comparison, by which it chooses",
            fix=f"Name a recipe ({', '.join(RECIPES)}), or leave out `parity: off` and --no-parity.",
        )
    found = candidates(spec.quantization, (profile.quantization if profile else None) or Quantization())
    if profile and profile.kv_type == "int8" and any(each.bits == 32 for each in found):
        raise SpecError(
            "quantization",
            found=f"`bits: 32`, and {profile.name!r}, a profile whose KV cache is in int8",
            expected="weights that are quantized too: what is not is compared as exact",
            fix="Leave out one of them.",
        )
    return found


def _refuse_unjudged(spec: ExportSpec) -> None:
    if spec.prefix_states_type == "auto" and spec.parity is None:
        raise SpecError(
            "prefix_states_type",
            found="`auto`, and no comparison with PEFT",
            expected="a comparison, by whose prompts and limits it chooses",
            fix="Name float32 or float16, or leave out `parity: off` and --no-parity.",
        )


def _refuse_double_profiles(profiles: Sequence[HardwareProfile]) -> None:
    names = [profile.name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(
                "profile",
                found=f"two profiles named {name!r}",
                expected="each name once",
                fix="Leave one out, or give your own file another `name`.",
            )


def _toolsets(spec: ExportSpec, checkpoint: Checkpoint, default: Mode) -> tuple[ToolsetSource, ...]:
    tools = [read_tools(toolset.tools) for toolset in spec.toolsets]
    folders = [_argument_folders(*pair) for pair in zip(spec.toolsets, tools, strict=True)]
    return tuple(
        _read_toolset(toolset, its_tools, its_folders, spec, checkpoint, default=default)
        for toolset, its_tools, its_folders in zip(spec.toolsets, tools, folders, strict=True)
    )


def _argument_folders(spec: ToolsetSpec, tools: Iterable[Tool]) -> dict[str, AdapterSpec]:
    """Tool → its argument adapter, in the order of the tools.

    Raises:
        SpecError: an adapter for no tool, for a tool without arguments, or a second one for a tool.

    """
    by_name = {tool.name: tool for tool in tools}
    where = f"toolset {spec.name!r}, arguments"
    given = _adapters_in(spec.arguments, by_name, where) if isinstance(spec.arguments, Path) else spec.arguments or {}
    for name in given:
        if name not in by_name:
            raise _no_such_tool(where, name, by_name)
        if not by_name[name].takes_arguments:
            raise SpecError(
                where,
                found=f"an adapter for {name!r}, a tool that takes no arguments",
                expected="adapters for tools that take some",
                fix="Remove the adapter; the tool is called without that stage.",
            )
    return {name: given[name] for name in by_name if name in given}


def _adapters_in(folder: Path, tools: Iterable[str], where: str) -> dict[str, AdapterSpec]:
    """The adapters of a folder of folders, each named after its tool (as it is, or as `safe_name` writes it)."""
    if (folder / "adapter_config.json").exists():
        raise SpecError(
            where,
            found=f"{folder}, an adapter itself",
            expected="a folder that holds one adapter folder a tool, named after the tool",
            fix="Name the folder above it.",
        )
    written = {safe_name(tool): tool for tool in tools} | {tool: tool for tool in tools}
    result: dict[str, AdapterSpec] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        tool = written.get(path.name)
        if tool is None:
            raise _no_such_tool(where, path.name, written.values())
        if tool in result:
            raise SpecError(
                where,
                found=f"two adapters for {tool!r}: {result[tool].path.name} and {path.name}",
                expected="one adapter a tool",
                fix="Remove one of the folders.",
            )
        result[tool] = AdapterSpec(path=path)
    return result


def _no_such_tool(where: str, name: str, tools: Iterable[str]) -> SpecError:
    known = list(dict.fromkeys(tools))
    near = difflib.get_close_matches(name, known, n=1)
    return SpecError(
        where,
        found=f"an adapter for {name!r}, which is no tool of this toolset",
        expected=f"one of {', '.join(known)}",
        fix=f"Did you mean {near[0]!r}?" if near else "Remove it, or add the tool to the tool list.",
    )


def _read_toolset(
    toolset: ToolsetSpec,
    tools: tuple[Tool, ...],
    folders: Mapping[str, AdapterSpec],
    spec: ExportSpec,
    checkpoint: Checkpoint,
    *,
    default: Mode,
) -> ToolsetSource:
    def read(kind: Kind, tool: str | None, adapter: AdapterSpec) -> AdapterSource:
        mode = adapter.mode or default
        weights = read_adapter(adapter.path, checkpoint, mode)
        return AdapterSource(
            name=".".join((kind, toolset.name, *([tool] if tool else []))),
            kind=kind,
            toolset=toolset.name,
            tool=tool,
            mode=mode,
            folder=adapter.path,
            rank=weights.rank,
            scale=weights.scale,
            sha256=weights.sha256,
            template=weights.chat_template,
            extras=weights.extras,
            plain=weights.plain,
        )

    if any(tool.name == spec.no_tool for tool in tools):
        raise SpecError(
            f"toolset {toolset.name!r}",
            found=f"a tool named {spec.no_tool!r}, the name that stands for calling no tool",
            expected="another name for one of them",
            fix="Set `no_tool:` to a name that no tool has.",
        )
    return ToolsetSource(
        toolset=Toolset(name=toolset.name, description=toolset.description, tools=tools),
        selection=read("selection", None, toolset.selection) if toolset.selection else None,
        arguments={tool: read("arguments", tool, adapter) for tool, adapter in folders.items()},
        templates=toolset.templates,
    )


def _profile_warnings(profiles: tuple[HardwareProfile, ...]) -> Iterable[str]:
    if len(profiles) == 1 and profiles[0] not in catalog.profiles():
        yield f"profile {profiles[0].name!r} is a file of yours: the device needs it beside the bundle"


def _warnings(toolsets: tuple[ToolsetSource, ...]) -> Iterable[str]:
    for source in toolsets:
        name = source.toolset.name
        if source.selection is None:
            yield f"toolset {name!r} has no selection adapter: the base model chooses among its tools"
        for tool in source.toolset.tools:
            if tool.takes_arguments and tool.name not in source.arguments:
                yield f"tool {tool.name!r} of {name!r} has no adapter: the base model writes its arguments"
        if len(toolsets) > 1 and not source.toolset.description:
            yield f"toolset {name!r} has no description: the base model chooses it by its name alone"
    yield from _shared(toolsets)


def _shared(toolsets: tuple[ToolsetSource, ...]) -> Iterable[str]:
    users: dict[str, list[str]] = {}
    for source in toolsets:
        for adapter in (source.selection, *source.arguments.values()):
            if adapter is not None:
                users.setdefault(adapter.sha256, []).append(adapter.name)
    for names in users.values():
        if len(names) > 1:
            yield f"{len(names)} stages share one adapter: {', '.join(names)}"


def _refuse_collisions(inputs: Inputs) -> None:
    """Toolset `a.b` with tool `c` and toolset `a` with tool `b.c` would be one name."""
    seen: dict[str, str] = {}
    for source in inputs.toolsets:
        for tool in source.toolset.tools:
            name = f"{source.toolset.name}.{tool.name}"
            if seen.setdefault(name, source.toolset.name) != source.toolset.name:
                raise SpecError(
                    "toolsets",
                    found=f"{name!r} twice: in toolset {seen[name]!r} and in {source.toolset.name!r}",
                    expected="names of toolset and tool that are different when joined by a dot",
                    fix="Rename one of the toolsets.",
                )
