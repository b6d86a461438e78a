"""The toolsets of a spec with their adapters, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.export.adapter.read import AdapterWeights, read_adapter
from dualtune_edge.export.base.chat_template import TemplateText
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.plan.argument_folders import ArgumentFolders, argument_folders
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import AdapterSpec, TemplatesSpec, ToolsetSpec
from dualtune_edge.toolkit.bundle.adapters import AdapterIdentity, Kind, Mode
from dualtune_edge.toolkit.errors import AdapterError, SpecError
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset


class AdapterInput(AdapterIdentity):
    """An adapter that was read and checked. Its tensors are read again when they are written.

    The tensors of forty adapters take the memory of another base model.
    """

    folder: Path
    template: TemplateText | None
    extras: frozenset[Extra]  # slots that it needs besides those of the layers' modules
    plain: bool  # LoRA and nothing else
    knows_added_tokens: bool = False  # those that the adapters of its bundle add to the base's tokenizer
    warnings: tuple[str, ...] = ()  # what of the folder is read differently from how it stands

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
                expected="an adapter that does not change during the export",
                fix="Wait until its training has ended, then export again.",
            )
        return weights


@dataclass(frozen=True)
class ToolsetInput:
    """A toolset with its adapters; `arguments`: by tool, of the tools that have an adapter.

    `passed_over` says which other folders are not used, and why.
    """

    toolset: Toolset
    selection: AdapterInput | None
    arguments: Mapping[str, AdapterInput]
    templates: TemplatesSpec
    passed_over: tuple[str, ...] = ()

    @property
    def adapters(self) -> tuple[AdapterInput, ...]:
        """Its adapters, that of the selection first."""
        return (*((self.selection,) if self.selection else ()), *self.arguments.values())


def read_toolsets(spec: ExportSpec, checkpoint: Checkpoint, default: Mode) -> tuple[ToolsetInput, ...]:
    """Every toolset of the spec; `default` is the mode of adapters that name none.

    Raises:
        ToolsError: a tool list or schema cannot be used.
        AdapterError: an adapter cannot be used exactly.
        SpecError: an adapter for no tool, two for one tool, or a tool with the name that stands for none.

    """
    tools = [read_tools(toolset.tools) for toolset in spec.toolsets]
    folders = [argument_folders(*pair) for pair in zip(spec.toolsets, tools, strict=True)]
    return tuple(
        _read_toolset(toolset, own_tools, own_folders, spec, checkpoint, default=default)
        for toolset, own_tools, own_folders in zip(spec.toolsets, tools, folders, strict=True)
    )


def adapter_folders(spec: ExportSpec) -> tuple[Path, ...]:
    """The folders of all adapters of a spec.

    Raises:
        ToolsError: a tool list cannot be used.
        SpecError: an adapter for no tool, or two for one tool.

    """
    arguments = [argument_folders(toolset, read_tools(toolset.tools)).adapters for toolset in spec.toolsets]
    others = [spec.toolset, spec.answer, *(toolset.selection for toolset in spec.toolsets)]
    adapters = [*filter(None, others), *(adapter for by_tool in arguments for adapter in by_tool.values())]
    return tuple(adapter.path for adapter in adapters)


@dataclass(frozen=True)
class BundleAdapters:
    """The adapters for the whole bundle; None: the base chooses the toolset, or writes the answer."""

    toolset: AdapterInput | None = None
    answer: AdapterInput | None = None


def read_bundle_adapters(spec: ExportSpec, checkpoint: Checkpoint, default: Mode) -> BundleAdapters:
    """Those that the spec names.

    Args:
        spec: what is exported.
        checkpoint: the base.
        default: the mode of adapters that name none.

    Raises:
        AdapterError: one cannot be used exactly.

    """
    return BundleAdapters(
        toolset=_read(_Answered("toolset"), spec.toolset, checkpoint, default) if spec.toolset else None,
        answer=_read(_Answered("answer"), spec.answer, checkpoint, default) if spec.answer else None,
    )


def _read_toolset(
    toolset: ToolsetSpec,
    tools: tuple[Tool, ...],
    folders: ArgumentFolders,
    spec: ExportSpec,
    checkpoint: Checkpoint,
    *,
    default: Mode,
) -> ToolsetInput:
    def read(kind: Kind, tool: str | None, adapter: AdapterSpec) -> AdapterInput:
        return _read(_Answered(kind, toolset.name, tool), adapter, checkpoint, default)

    if any(tool.name == spec.no_tool for tool in tools):
        raise SpecError(
            f"toolset {toolset.name!r}",
            found=f"a tool named {spec.no_tool!r}, the name that stands for calling no tool",
            expected="another name for one of them",
            fix="Set `no_tool:` to a name that no tool has.",
        )
    return ToolsetInput(
        toolset=Toolset(name=toolset.name, description=toolset.description, tools=tools),
        selection=read("selection", None, toolset.selection) if toolset.selection else None,
        arguments={tool: read("arguments", tool, adapter) for tool, adapter in folders.adapters.items()},
        templates=toolset.templates,
        passed_over=folders.passed_over,
    )


@dataclass(frozen=True)
class _Answered:
    """The stage that an adapter answers."""

    kind: Kind
    toolset: str | None = None
    tool: str | None = None

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.kind, self.toolset, self.tool)))


def _read(stage: _Answered, adapter: AdapterSpec, checkpoint: Checkpoint, default: Mode) -> AdapterInput:
    mode = adapter.mode or default
    weights = read_adapter(adapter.path, checkpoint, mode)
    return AdapterInput(
        name=stage.name,
        kind=stage.kind,
        toolset=stage.toolset,
        tool=stage.tool,
        mode=mode,
        folder=adapter.path,
        rank=weights.rank,
        scale=weights.scale,
        sha256=weights.sha256,
        invocation=weights.invocation,
        template=weights.chat_template,
        extras=weights.extras,
        plain=weights.plain,
        warnings=weights.warnings,
        knows_added_tokens=weights.knows_added_tokens,
    )


def toolset_warnings(toolsets: tuple[ToolsetInput, ...], others: BundleAdapters) -> Iterable[str]:
    """What a user might not expect: stages without an adapter, toolsets without a description, shared adapters."""
    choice, answer = others.toolset, others.answer
    for adapter in filter(None, (choice, answer)):
        yield from adapter.warnings
    for source in toolsets:
        name = source.toolset.name
        yield from (f"{why} It is passed over" for why in source.passed_over)
        if source.selection is None:
            yield f"toolset {name!r} has no selection adapter: the base model chooses among its tools"
        for tool in source.toolset.tools:
            if tool.takes_arguments and tool.name not in source.arguments:
                yield f"tool {tool.name!r} of {name!r} has no adapter: the base model writes its arguments"
        if len(toolsets) > 1 and not source.toolset.description:
            chooser = "the adapter" if choice else "the base model"
            yield f"toolset {name!r} has no description: {chooser} chooses it by its name alone"
        for adapter in source.adapters:
            yield from adapter.warnings
    yield from _shared([choice, *(adapter for source in toolsets for adapter in source.adapters), answer])


def _shared(adapters: Iterable[AdapterInput | None]) -> Iterable[str]:
    users: dict[str, list[str]] = {}
    for adapter in filter(None, adapters):
        users.setdefault(adapter.sha256, []).append(adapter.name)
    for names in users.values():
        if len(names) > 1:
            yield f"{len(names)} stages share one adapter: {', '.join(names)}"
