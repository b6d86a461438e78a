"""`dualtune-edge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.verification import Against, Verification


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    *,
    profile: Annotated[str, typer.Option(metavar="NAME", help="The variant to simulate: one for an NPU.")],
    heldout: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Conversations with right answers: JSON lines, as for fine-tuning."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="The most prompts made from the tools, and the most turns of conversations.")
    ] = 12,
    as_json: console.AsJson = False,
) -> None:
    """Simulate the NPU and compare it with the CPU.

    The variant's graphs are compiled for its SoC and run in the simulation that comes with the compiler (Linux on
    x86-64, package onnxruntime-qnn). A forward takes seconds; a choice is two or three of them, arguments ten to
    thirty. After Ctrl-C the report is of the prompts simulated so far. The same prompts go to the same graphs on the
    CPU provider, and to the bundle's primary model. The report is put into the bundle too, where `inspect` shows it.

    Example:
        dualtune-edge verify my-bundle --profile qnn-x-elite --heldout heldout.jsonl --limit 20

    """
    from dualtune_edge.export.qnn.simulation import Simulation

    simulation = Simulation(bundle, profile)
    report = simulation.run(heldout, limit)
    console.result(report, _text(report), as_json=as_json)
    simulation.keep(report)


def _text(report: Verification) -> str:
    lines = [
        f"{report.profile} simulated: {report.prompts} prompts, {report.forwards} forwards, {report.seconds:.0f} s",
    ]
    if report.known:
        lines.append(_known(report, report))
    for against in report.against:
        errors = max(stage.max_error for stage in against.stages)
        lines += [
            f"against {against.reference}:",
            f"  choices the same    {against.agreed} of {against.choices}",
            f"  arguments the same  {against.same} of {against.arguments}",
            f"  logits              within {errors:.3g}, KL up to {max(stage.max_kl for stage in against.stages):.2g}",
        ]
        if report.known:
            lines.append(f"  {_known(against, report)}")
    return "\n".join(lines)


def _known(answers: Against | Verification, report: Verification) -> str:
    return f"right answers: {answers.right} of {report.known}, whole calls: {answers.whole} of {report.calls}"
