"""`dualtune-edge export`: a spec, or flags, into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dualtune_edge.export import options
from dualtune_edge.export.compare.table import table
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.sharing import variant_lines

if TYPE_CHECKING:
    from dualtune_edge.export.publish.report import ExportReport


def export(
    spec: options.Spec = None,
    *,
    output: options.Output,
    base: options.Base = None,
    graph: options.Graph = None,
    tools: options.Tools = None,
    selection: options.Selection = None,
    arguments: options.Arguments = None,
    template: options.Template = None,
    mode: options.AdapterMode = None,
    profile: options.Profiles = None,
    quantization: options.Quantization = None,
    calibration: options.Calibration = None,
    trajectories: options.Trajectories = None,
    licence: options.Licence = None,
    no_parity: options.NoParity = False,
    prefix_states_mb: options.PrefixStatesMb = None,
    prefix_states_type: options.PrefixStatesType = None,
    reuse: options.Reuse = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
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

    toolset = options.ToolsetFlags(base, graph, tools, selection, arguments, mode, prefix_states_mb, trajectories)
    overrides = options.Overrides(profile, quantization, prefix_states_type, template, calibration, no_parity, licence)
    whole = overrides.applied_to(toolset.spec(spec))
    if dry_run:
        needed = run.preflight(whole, output)
        for warning in needed.warnings:
            console.warn(warning)
        console.result(needed, estimate_table(needed), as_json=as_json)
        return
    report = run.run(whole, output, reuse=reuse, force=force, on_kept=_print_kept, on_comparison=_print_comparison)
    for warning in report.warnings:
        console.warn(warning)
    console.result(report, _text(report), as_json=as_json)


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
    copied = (f"copied          {standing.line}" for standing in report.copied)
    licences = f"licences        {report.licences.line()}"
    return "\n".join((line, licences, *variant_lines(report.variants), *copied))
