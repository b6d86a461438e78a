"""`dualtune-edge export`: a spec, or flags, into a bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualtune_edge.export.compare.table import table
from dualtune_edge.export.plan.recipes import Recipe, StatesType, TemplateChoice
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.manifest import PRIMARY, Mode
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.sharing import variant_lines
from dualtune_edge.toolkit.errors import SpecError

if TYPE_CHECKING:
    from dualtune_edge.export.plan.spec import ExportSpec
    from dualtune_edge.export.publish.report import ExportReport


def export(
    spec: Annotated[Path | None, typer.Argument(metavar="SPEC.yaml", help="A dualtune.yaml.")] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle's folder; nothing may be there yet.")],
    base: Annotated[Path | None, typer.Option(help="The base model's folder, in Hugging Face format.")] = None,
    graph: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The base's graph, as `optimum-cli export onnx` wrote it.")
    ] = None,
    tools: Annotated[
        Path | None, typer.Option(help="One toolset's tools: an MCP, OpenAI, Anthropic or BFCL file.")
    ] = None,
    selection: Annotated[Path | None, typer.Option(help="The adapter that chooses the tool.")] = None,
    arguments: Annotated[Path | None, typer.Option(help="A folder of adapters, each named after its tool.")] = None,
    template: Annotated[
        TemplateChoice | None,
        typer.Option(help="The built-in chat template in place of the base's own, where an adapter brings none."),
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="Keep adapters beside the base, or merge them into it.")] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A hardware profile's name or .toml file, instead of the spec's; several times: a variant for each.",
        ),
    ] = None,
    quantization: Annotated[
        Recipe | None,
        typer.Option(help="How weights are stored, instead of the spec's; auto: as cheaply as the limits allow."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with PEFT on these conversations too: JSON lines.")
    ] = None,
    no_parity: Annotated[bool, typer.Option("--no-parity", help="Do not compare with PEFT.")] = False,
    prefix_states_mb: Annotated[
        int | None, typer.Option(min=0, help="Write at most so many MB of prefix states, 0 for none; default: 10000.")
    ] = None,
    prefix_states_type: Annotated[
        StatesType | None,
        typer.Option(help="How they are stored; auto: in float16, but for those behind which an answer differs."),
    ] = None,
    reuse: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Copy what an earlier bundle has in common with this one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what disk, memory and time it will take, and stop.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Begin even where disk or memory may not be enough.")] = False,
    as_json: console.AsJson = False,
) -> None:
    r"""Compile a base model and its LoRA adapters into a bundle.

    A SPEC.yaml names everything; for one toolset, flags do. What comes out is compared with PEFT in float32, stage by
    stage; beyond the limits of `parity:` the export fails. An export that was interrupted, or failed, goes on from what
    it had finished when it is started again.

    Example:
        dualtune-edge export dualtune.yaml -o bundle
        dualtune-edge export --base qwen2.5-0.5b --tools filesystem.json \
            --selection adapters/selection --arguments adapters/arguments -o bundle

    """
    from dualtune_edge.export import run
    from dualtune_edge.export.estimate_table import estimate_table

    asked = _asked(spec, _Flags(base, graph, tools, selection, arguments, mode, prefix_states_mb))
    instead = {
        "profiles": tuple(profile or ()),
        "quantization": quantization,
        "prefix_states_type": prefix_states_type,
        "template": template,
    }
    asked = asked.model_copy(update={name: value for name, value in instead.items() if value})
    asked = _compared(asked, calibration, no_parity=no_parity)
    if dry_run:
        needed = run.preflight(asked, output)
        console.result(needed, estimate_table(needed), as_json=as_json)
        return
    report = run.run(asked, output, reuse=reuse, force=force, on_kept=_print_kept, on_comparison=_print_comparison)
    for warning in report.warnings:
        console.warn(warning)
    console.result(report, _text(report), as_json=as_json)


@dataclass(frozen=True)
class _Flags:
    """Flags that are given instead of a spec; None: not given."""

    base: Path | None
    graph: Path | None
    tools: Path | None
    selection: Path | None
    arguments: Path | None
    mode: Mode | None
    prefix_states_mb: int | None

    @property
    def given(self) -> str:
        """Names of the given flags."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _asked(spec: Path | None, flags: _Flags) -> ExportSpec:
    from dualtune_edge.export.plan.spec import ExportSpec, read_spec

    if spec and not flags.given:
        return read_spec(spec)
    if flags.base and flags.tools and not spec:
        return ExportSpec.from_flags(
            flags.base,
            flags.tools,
            graph=flags.graph,
            selection=flags.selection,
            arguments=flags.arguments,
            mode=flags.mode,
            prefix_states_mb=flags.prefix_states_mb,
        )
    raise SpecError(
        "the command line",
        found=f"{spec} together with {flags.given}" if spec else flags.given or "neither a spec nor flags",
        expected="either a SPEC.yaml, or --base and --tools at least",
        fix="Say in the spec what the flags say.",
    )


def _compared(spec: ExportSpec, calibration: Path | None, *, no_parity: bool) -> ExportSpec:
    """The spec with what the flags say of the comparison."""
    if calibration and (no_parity or spec.parity is None):
        raise SpecError(
            "--calibration",
            found="a file to compare on, and no comparison",
            expected="one of them",
            fix="Leave out --no-parity, or `parity: off` in the spec.",
        )
    if no_parity:
        return spec.model_copy(update={"parity": None})
    if calibration and spec.parity:
        return spec.model_copy(update={"parity": spec.parity.model_copy(update={"calibration": calibration})})
    return spec


def _print_kept(folder: Path, size: int) -> None:
    from dualtune_edge.export.estimate import gigabytes

    console.warn(
        f"{folder} keeps the finished parts ({gigabytes(size)}): the same command goes on from there; "
        "remove the folder if you do not need it"
    )


def _print_comparison(model: str, report: ParityReport) -> None:
    heading = "" if model == PRIMARY else f"variant {model}\n"
    typer.echo(heading + table(report), err=True)


def _text(report: ExportReport) -> str:
    sizes = report.sizes
    parts = {"base": sizes.model, "adapters": sizes.adapters, "merged": sizes.merged, "prefix states": sizes.states}
    parts |= {"variants": sizes.variants}
    listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts.items() if size)
    again = f", {len(report.reused)} parts used again" if report.reused else ""
    line = f"{report.path}: {sizes.total / 1e6:.1f} MB ({listed}) in {report.seconds:.0f} s{again}"
    return "\n".join((line, *variant_lines(report.variants)))
