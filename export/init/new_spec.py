"""Tool lists and conversations → a `dualtune.yaml` to train and export by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import yaml

from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.yaml_file import dotted, require_path
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import refuse_existing, replace_file, safe_name, unwritable
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.validation import validate

_HEAD: Final = "# What finetune trains, and export compiles. All that can stand here: docs/guide.md\n"
_TEMPLATES: Final = ("selection", "arguments")  # with .jinja, in the folder of --templates


class NewSpec(Frozen):
    """What `init --json` prints. `adapters`: how many are to be trained."""

    spec: str
    toolsets: tuple[str, ...]
    tools: int
    adapters: int


def write_spec(
    output: Path, *, base: Path, tools: dict[str, Path], data: Path | None, templates: Path | None
) -> NewSpec:
    """Write a spec for new adapters.

    Args:
        output: the spec; nothing may be there yet.
        base: the base model's folder.
        tools: the toolsets' tool lists, by name.
        data: the conversations that the adapters learn from.
        templates: a folder of chat templates.

    Raises:
        SpecError: a path leads nowhere, or a name cannot be a toolset's.
        ToolsError: a tool list cannot be read.
        OutputError: something is at `output`, or it cannot be written.

    """
    refuse_existing(output)
    for flag, path, folder_wanted in (
        ("--base", base, True),
        *(("--tools", path, False) for path in tools.values()),
        *([("--data", data, False)] if data else []),
        *([("--templates", templates, True)] if templates else []),
    ):
        require_path(flag, path, folder_wanted=folder_wanted)
    beside = output.parent
    toolsets = [_toolset(name, path, data, _found(templates), beside) for name, path in tools.items()]
    value: dict[str, Any] = {"base": _written(base, beside)}
    if len(toolsets) > 1:
        value["toolset"] = "adapters/toolset"
        toolsets = [{"name": toolset["name"], "description": ""} | toolset for toolset in toolsets]
    value["toolsets"] = toolsets
    spec = validate(ExportSpec, value, where=dotted, error=SpecError, context=beside)
    text = _HEAD + yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    try:
        replace_file(output, text.encode())
    except OSError as error:
        raise unwritable(output, error) from None
    return _report(spec, output)


def _toolset(name: str, tools: Path, data: Path | None, templates: dict[str, Path], beside: Path) -> dict[str, Any]:
    """A toolset of the spec, with paths relative to `beside`."""
    folder = f"adapters/{safe_name(name)}"
    value: dict[str, Any] = {"name": name, "tools": _written(tools, beside)}
    value["selection"] = f"{folder}/selection"
    if any(tool.takes_arguments for tool in read_tools(tools)):
        value["arguments"] = f"{folder}/arguments"
    if data:
        value["trajectories"] = _written(data, beside)
    if templates:
        value["templates"] = {stage: _written(path, beside) for stage, path in templates.items()}
    return value


def _found(folder: Path | None) -> dict[str, Path]:
    """The templates in a folder, by stage."""
    if folder is None:
        return {}
    files = {stage: folder / f"{stage}.jinja" for stage in _TEMPLATES}
    found = {stage: path for stage, path in files.items() if path.is_file()}
    if not found:
        raise SpecError(
            "--templates",
            found=f"{folder}, in which there is none of them",
            expected=" or ".join(path.name for path in files.values()),
            fix="Check the path, or leave it out: the built-in templates are taken.",
        )
    return found


def _written(path: Path, beside: Path) -> str:
    """A path as the spec names it; an absolute one stays."""
    try:
        relative = path if path.is_absolute() else Path(os.path.relpath(path, beside))
    except ValueError:  # another drive of Windows
        relative = path.absolute()
    return relative.as_posix()


def _report(spec: ExportSpec, output: Path) -> NewSpec:
    tools = [tool for toolset in spec.toolsets for tool in read_tools(toolset.tools)]
    arguments = sum(tool.takes_arguments for tool in tools)
    return NewSpec(
        spec=str(output),
        toolsets=tuple(toolset.name for toolset in spec.toolsets),
        tools=len(tools),
        adapters=bool(spec.toolset) + len(spec.toolsets) + arguments,
    )
