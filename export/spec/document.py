"""The contents of `dualtune.yaml`: the base, the toolsets, the adapters, and how they are deployed.

An adapter is a path, or a path with a mode if it differs from the spec's. Paths are relative to the file that names
them. docs/guide.md shows a whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from dualtune_edge.export.spec.parts import (
    BRANCHES,
    AdapterSpec,
    LicencesSpec,
    LocalPath,
    Name,
    ParitySpec,
    ProfileName,
    QuantizationSpec,
    ToolsetSpec,
)
from dualtune_edge.export.spec.recipes import StatesType, TemplateChoice
from dualtune_edge.export.spec.yaml_file import Location, dotted, read_yaml, require_path
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL
from dualtune_edge.toolkit.validation import validate


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else [] if value is None else value


def _off(value: object) -> object:
    if value is False or value == "off":
        return None
    if isinstance(value, dict | ParitySpec):
        return value
    raise PydanticCustomError("parity", "`off`, or a mapping")


class ExportSpec(Frozen):
    """One export.

    `profile` is the name or the file (`….toml`) of a hardware profile, or a list of them: a variant each. Without
    one the device chooses. What is left out of `quantization` is the profile's, and so is `mode`; without either,
    adapters are external. `graph` is a folder that `optimum-cli export onnx` wrote of the base; without it
    onnxruntime-genai's builder makes the graph. `toolset` is the adapter that chooses among toolsets, `answer` that
    which writes the text at the end; without one the base does. `toolset_template` and `answer_template` are their
    templates; `template: builtin` takes the built-in templates in place of the base's own. `prefix_states_mb`: the
    most MB (1e6 bytes) of prefix states to write, 0 for none, None for all. `prefix_states_type`: float32 is what
    the device would compute, to the last bit; float16 takes half the disk; `auto` is float16 where no answer
    differs in the comparison, and counts as float32 in `prefix_states_mb`. `release`: which product and version the
    bundle is. `licences`: of parts whose folders say nothing of theirs.
    """

    base: LocalPath
    graph: LocalPath | None = None
    toolsets: tuple[ToolsetSpec, ...] = Field(min_length=1, max_length=limits.TOOLSETS)
    mode: Mode | None = None
    quantization: QuantizationSpec = Quantization()
    profiles: Annotated[tuple[ProfileName, ...], BeforeValidator(_listed)] = Field(default=(), alias="profile")
    no_tool: Name = NO_TOOL
    release: Release | None = None
    licences: LicencesSpec = LicencesSpec()
    toolset: AdapterSpec | None = None
    toolset_template: LocalPath | None = None
    answer: AdapterSpec | None = None
    answer_template: LocalPath | None = None
    template: TemplateChoice | None = None
    prefix_states_mb: Annotated[int, Field(ge=0, strict=True)] | None = (
        10_000  # 117 adapters with 31,000 tokens of tools: 89 GB
    )
    prefix_states_type: StatesType = "float32"
    parity: Annotated[ParitySpec | None, BeforeValidator(_off)] = ParitySpec()  # None: nothing is compared

    @classmethod
    def from_flags(
        cls,
        base: Path,
        tools: Path,
        *,
        graph: Path | None = None,
        selection: Path | None = None,
        arguments: Path | None = None,
        mode: Mode | None = None,
        prefix_states_mb: int | None = None,
        trajectories: Path | None = None,
    ) -> ExportSpec:
        """One toolset, named after its tool list's file.

        Raises:
            SpecError: a path leads nowhere, or the file's name cannot be a toolset's.

        """
        require_path("--tools", tools, folder_wanted=False)
        toolset = {"name": tools.stem, "tools": tools, "selection": selection, "arguments": arguments}
        toolset |= {"trajectories": trajectories} if trajectories else {}
        value = {"base": base, "toolsets": [toolset], "mode": mode, "graph": graph}
        value |= {} if prefix_states_mb is None else {"prefix_states_mb": prefix_states_mb}
        return _validate(value, Path(), _flag)


def read_spec(path: Path, *, trained: bool = True) -> ExportSpec:
    """Read a `dualtune.yaml`.

    Args:
        path: the file.
        trained: the folders of the adapters have to be there.

    Raises:
        SpecError: not YAML, an unknown or repeated key, a wrong type, a path that leads nowhere, two toolsets of one
            name. It names the line and the place in the document.

    """
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise SpecError(
            str(path), found="no mapping", expected="`base:` and `toolsets:`", fix="See docs/guide.md for an example."
        )
    return _validate(document.value, path.parent, document.where, trained=trained)


def _validate(
    value: dict[str, Any], folder: Path, where: Callable[[Location], str], *, trained: bool = True
) -> ExportSpec:
    spec = validate(
        ExportSpec, value, where=lambda location: where(_written(value, location)), error=SpecError, context=folder
    )
    _refuse_double_toolsets(spec, where)
    _refuse_choice_of_one(spec, where)
    for location, path, folder_wanted in (*_paths(spec), *(_adapter_paths(spec) if trained else ())):
        require_path(where(location), path, folder_wanted=folder_wanted)
    return spec


def _written(value: Any, location: Location) -> Location:
    """The location in the document, without the names of union branches that pydantic inserts."""
    result: list[str | int] = []
    for part in location:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            value = value[part]
            result.append(part)
    last = location[-1:]
    return tuple(result) if last == tuple(result[-1:]) or last[0] in BRANCHES else (*result, *last)


def _refuse_double_toolsets(spec: ExportSpec, where: Callable[[Location], str]) -> None:
    names = [toolset.name for toolset in spec.toolsets]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SpecError(
                where(("toolsets", index, "name")),
                found=f"a second toolset named {name!r}",
                expected="each name once",
                fix="Rename one of them.",
            )


def _refuse_choice_of_one(spec: ExportSpec, where: Callable[[Location], str]) -> None:
    if spec.toolset and len(spec.toolsets) == 1:
        raise SpecError(
            where(("toolset",)),
            found="an adapter that chooses among toolsets, and one toolset",
            expected="two toolsets or more",
            fix="Remove the line; a toolset's adapters are its `selection` and `arguments`.",
        )


def _paths(spec: ExportSpec) -> Iterator[tuple[Location, Path, bool]]:
    """(location, path, whether it must be a folder) of what the spec refers to, but for adapters."""
    yield ("base",), spec.base, True
    if spec.graph:
        yield ("graph",), spec.graph, True
    for part in ("base", "adapters"):
        if path := getattr(spec.licences, part):
            yield ("licences", part), path, False
    if spec.toolset_template:
        yield ("toolset_template",), spec.toolset_template, False
    if spec.answer_template:
        yield ("answer_template",), spec.answer_template, False
    if spec.parity and spec.parity.calibration:
        yield ("parity", "calibration"), spec.parity.calibration, False
    for index, toolset in enumerate(spec.toolsets):
        yield from _toolset_paths(toolset, ("toolsets", index))


def _toolset_paths(toolset: ToolsetSpec, here: Location) -> Iterator[tuple[Location, Path, bool]]:
    if toolset.trajectories:
        yield (*here, "trajectories"), toolset.trajectories, False
    yield (*here, "tools"), toolset.tools, False
    for stage, template in (("selection", toolset.templates.selection), ("arguments", toolset.templates.arguments)):
        if template:
            yield (*here, "templates", stage), template, False


def _adapter_paths(spec: ExportSpec) -> Iterator[tuple[Location, Path, bool]]:
    if spec.toolset:
        yield ("toolset",), spec.toolset.path, True
    if spec.answer:
        yield ("answer",), spec.answer.path, True
    for index, toolset in enumerate(spec.toolsets):
        here = ("toolsets", index)
        if toolset.selection:
            yield (*here, "selection"), toolset.selection.path, True
        if isinstance(toolset.arguments, Path):
            yield (*here, "arguments"), toolset.arguments, True
        else:
            for tool, adapter in (toolset.arguments or {}).items():
                yield (*here, "arguments", tool), adapter.path, True


def _flag(location: Location) -> str:
    """The flag that a field of the spec comes from."""
    names = [part for part in location if isinstance(part, str) and part != "toolsets"]
    return "--tools" if names == ["name"] else f"--{names[0]}" if names else dotted(location)
