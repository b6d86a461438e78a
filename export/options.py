"""The options of `dualtune-edge export`, and the spec that they make."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from dualtune_edge.export.spec.recipes import Recipe, StatesType, TemplateChoice
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import SpecError

if TYPE_CHECKING:
    from dualtune_edge.export.spec.document import ExportSpec

Spec: TypeAlias = Annotated[Path | None, typer.Argument(metavar="SPEC.yaml", help="A dualtune.yaml.")]
Output: TypeAlias = Annotated[
    Path, typer.Option("-o", "--output", help="The bundle's folder; nothing may be there yet.")
]
Base: TypeAlias = Annotated[Path | None, typer.Option(help="The base model's folder, in Hugging Face format.")]
Graph: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The base's graph, as `optimum-cli export onnx` wrote it.")
]
Tools: TypeAlias = Annotated[
    Path | None, typer.Option(help="One toolset's tools: an MCP, OpenAI, Anthropic or BFCL file.")
]
Selection: TypeAlias = Annotated[Path | None, typer.Option(help="The adapter that chooses the tool.")]
Arguments: TypeAlias = Annotated[Path | None, typer.Option(help="A folder of adapters, each named after its tool.")]
Template: TypeAlias = Annotated[
    TemplateChoice | None,
    typer.Option(help="The built-in chat template in place of the base's own, where an adapter brings none."),
]
AdapterMode: TypeAlias = Annotated[
    Mode | None, typer.Option(help="Keep adapters beside the base, or merge them into it.")
]
Profiles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A hardware profile's name or .toml file, instead of the spec's; several times: a variant for each.",
    ),
]
Quantization: TypeAlias = Annotated[
    Recipe | None,
    typer.Option(help="How weights are stored, instead of the spec's; auto: as cheaply as the limits allow."),
]
Calibration: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Compare with PEFT on these conversations too: JSON lines.")
]
Trajectories: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What the adapters learnt from: it shows which properties are copied."),
]
Licence: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The licence's text of all parts whose folders say nothing of theirs."),
]
NoParity: TypeAlias = Annotated[bool, typer.Option("--no-parity", help="Do not compare with PEFT.")]
PrefixStatesMb: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Write at most so many MB of prefix states, 0 for none; default: 10000.")
]
PrefixStatesType: TypeAlias = Annotated[
    StatesType | None,
    typer.Option(help="How they are stored; auto: in float16, but for those behind which an answer differs."),
]
Reuse: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="BUNDLE", help="Copy what an earlier bundle has in common with this one.")
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Tell what disk, memory and time it will take, and stop.")
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Begin even where disk or memory may not be enough.")]


@dataclass(frozen=True)
class ToolsetFlags:
    """The flags that stand in place of a SPEC.yaml; None: not given."""

    base: Path | None
    graph: Path | None
    tools: Path | None
    selection: Path | None
    arguments: Path | None
    mode: Mode | None
    prefix_states_mb: int | None
    trajectories: Path | None

    @property
    def names(self) -> str:
        """Names of the given flags."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return ", ".join(f"--{name.replace('_', '-')}" for name in names)

    def spec(self, file: Path | None) -> ExportSpec:
        """The spec of a SPEC.yaml, or of these flags.

        Raises:
            SpecError: both are given, or neither.

        """
        from dualtune_edge.export.spec.document import ExportSpec, read_spec  # noqa: PLC0415 - yaml is no device's package

        if file and not self.names:
            return read_spec(file)
        if self.base and self.tools and not file:
            return ExportSpec.from_flags(
                self.base,
                self.tools,
                graph=self.graph,
                selection=self.selection,
                arguments=self.arguments,
                mode=self.mode,
                prefix_states_mb=self.prefix_states_mb,
                trajectories=self.trajectories,
            )
        raise SpecError(
            "the command line",
            found=f"{file} together with {self.names}" if file else self.names or "neither a spec nor flags",
            expected="either a SPEC.yaml, or --base and --tools at least",
            fix="Say in the spec what the flags say.",
        )


@dataclass(frozen=True)
class Overrides:
    """The flags that replace a value of any spec; None or empty: not given."""

    profiles: list[str] | None
    quantization: Recipe | None
    prefix_states_type: StatesType | None
    template: TemplateChoice | None
    calibration: Path | None
    no_parity: bool
    licence: Path | None

    def applied_to(self, spec: ExportSpec) -> ExportSpec:
        """The spec with these values.

        Raises:
            SpecError: conversations are given to compare on, and no comparison is asked for; no licence is at the path.

        """
        values = {
            "profiles": tuple(self.profiles or ()),
            "quantization": self.quantization,
            "prefix_states_type": self.prefix_states_type,
            "template": self.template,
        }
        spec = spec.model_copy(update={name: value for name, value in values.items() if value})
        if self.licence:
            spec = self._licensed(spec, self.licence)
        if self.calibration and (self.no_parity or spec.parity is None):
            raise SpecError(
                "--calibration",
                found="a file to compare on, and no comparison",
                expected="one of them",
                fix="Leave out --no-parity, or `parity: off` in the spec.",
            )
        if self.no_parity:
            return spec.model_copy(update={"parity": None})
        if self.calibration and spec.parity:
            return spec.model_copy(update={"parity": spec.parity.model_copy(update={"calibration": self.calibration})})
        return spec

    def _licensed(self, spec: ExportSpec, licence: Path) -> ExportSpec:
        """The spec with this licence where it names none."""
        from dualtune_edge.export.spec.parts import LicencesSpec  # noqa: PLC0415 - as above
        from dualtune_edge.export.spec.yaml_file import require_path  # noqa: PLC0415 - as above

        require_path("--licence", licence, folder_wanted=False)
        said = spec.licences
        licences = LicencesSpec(base=said.base or licence, adapters=said.adapters or licence)
        return spec.model_copy(update={"licences": licences})
