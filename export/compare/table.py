"""The report as a table for a reader."""

from __future__ import annotations

from typing import Final

from dualtune_edge.toolkit.bundle.parity import ParityReport, StageParity
from dualtune_edge.toolkit.console import table_lines

_COLUMNS: Final = ("stage", "prompts", "float32 error", "error", "mean", "top-1", "KL", "choices", "arguments")
_TEXTS: Final = "answers"  # a column of bundles that are compared in it


def table(report: ParityReport) -> str:
    """A line for each stage, and one for the whole. Choices and so on: those equal to the reference's, of all."""
    if report.skipped is not None:
        return f"parity: {report.line()}"
    texts = any(stage.texts for stage in report.stages)
    columns = (*_COLUMNS, _TEXTS) if texts else _COLUMNS
    lines = table_lines(columns, (_cells(stage)[: len(columns)] for stage in report.stages), left={"stage"})
    left_out = report.before_quantization_skipped
    notes = [f"before quantization not compared: {left_out}"] if left_out else []
    notes += [f"recipe {recipe.recipe} refused: {recipe.why}" for recipe in report.refused]
    return "\n".join((*lines, f"parity: {report.line()}", *notes))


def _cells(stage: StageParity) -> tuple[str, ...]:
    before = stage.before_quantization
    return (
        stage.stage,
        str(stage.prompts),
        "" if before is None else f"{before:.1e}",
        f"{stage.max_error:.2f}",
        f"{stage.mean_error:.2f}",
        f"{stage.top1:.0%}",
        f"{stage.mean_kl:.4f}",
        f"{stage.choices - stage.flips}/{stage.choices}" if stage.choices else "",
        f"{stage.exact}/{stage.arguments}" if stage.arguments else "",
        f"{stage.same_texts}/{stage.texts}" if stage.texts else "",
    )
