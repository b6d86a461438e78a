"""What `dualtune-edge verify --profile` does."""

from __future__ import annotations

from pathlib import Path

from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.verification import Against, Verification


def simulate(bundle: Path, profile: str, *, heldout: Path | None, limit: int, as_json: bool) -> None:
    """Simulate a variant for an NPU, print how it stands beside the CPU, and put the report into the bundle."""
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
