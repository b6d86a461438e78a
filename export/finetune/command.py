"""`dualtune-edge finetune`."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from dualtune_edge.export.finetune.progress import shown
from dualtune_edge.export.finetune.settings import TARGETS, FinetuneSettings, Objective
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.validation import validate

if TYPE_CHECKING:
    from dualtune_edge.export.finetune.report import FinetuneReport

_BARS: Final = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH: Final = 40  # characters


def finetune(
    *,
    objective: Annotated[Objective, typer.Option("--objective", "--stage", help="What the adapter learns.")],
    base: Annotated[Path, typer.Option(metavar="DIR", help="The base model's folder.")],
    tools: Annotated[Path, typer.Option(metavar="FILE", help="The toolset's tool list.")],
    data: Annotated[Path, typer.Option(metavar="FILE", help="Trajectories: one JSON object a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the adapter goes.")],
    tool: Annotated[str | None, typer.Option(help="The tool whose arguments are learnt.")] = None,
    toolset: Annotated[str | None, typer.Option(help="Use only the trajectories that name this toolset.")] = None,
    template: Annotated[Path | None, typer.Option(metavar="FILE", help="Chat template.")] = None,
    activated: Annotated[
        bool, typer.Option("--activated", help="The adapter is in force from the assistant's turn on.")
    ] = False,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="TOOL=SHARE", help="Learn only this share of a tool's turns.")
    ] = None,
    too_long: Annotated[Literal["refuse", "drop"], typer.Option(help="What becomes of too long samples.")] = "refuse",
    max_length: Annotated[int | None, typer.Option(help="Tokens of a sample; default: the base's context.")] = None,
    rank: Annotated[int, typer.Option(help="LoRA rank.")] = 32,
    alpha: Annotated[float, typer.Option(help="LoRA alpha.")] = 64.0,
    rslora: Annotated[bool, typer.Option(help="Scale by alpha / sqrt(rank), not alpha / rank.")] = True,
    target: Annotated[list[str] | None, typer.Option(help="A module to adapt; default: all seven.")] = None,
    dropout: Annotated[float, typer.Option(help="LoRA dropout.")] = 0.0,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="Number format of the saved adapter.")
    ] = "float32",
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 4,
    max_steps: Annotated[int | None, typer.Option(help="End the run after so many steps.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 16,
    micro_batch: Annotated[int | None, typer.Option(help="Samples held in memory at once.")] = None,
    warm_up_steps: Annotated[int, typer.Option(help="Steps up to the peak learning rate.")] = 5,
    weight_decay: Annotated[float, typer.Option(help="AdamW's weight decay.")] = 0.01,
    autocast: Annotated[bool, typer.Option(help="Multiply in bfloat16.")] = False,
    seed: Annotated[int, typer.Option(help="Of initialisation, order and dropout.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch; default: the physical cores.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints; default: a minute.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of an interrupted run.")] = False,
    as_json: console.AsJson = False,
) -> None:
    """Train one adapter by decoupled fine-tuning.

    Of the trajectories, selection learns the tools' names, arguments the arguments of one tool, joint whole calls.

    Example:
        dualtune-edge finetune --objective selection --base qwen --tools git.json --data git.jsonl -o adapters/selection

    """
    values = locals() | {"keep": dict(map(_share, keep or ())), "targets": tuple(target or TARGETS)}
    del values["target"], values["as_json"]  # the other options have the names of the settings
    settings = validate(FinetuneSettings, values, where="finetune", error=SpecError)
    from transformers.utils import logging

    from dualtune_edge.export.finetune import train

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of an old name that PEFT uses
    logging.disable_progress_bar()
    with shown() as on_event:
        report = train.finetune(settings, on_event)
    console.result(report, _summary(report), as_json=as_json)


def _share(text: str) -> tuple[str, float]:
    tool, _, share = text.rpartition("=")
    try:
        return tool, float(share)
    except ValueError:
        raise SpecError("--keep", found=repr(text), expected="TOOL=SHARE", fix="Write it as read_file=0.25.") from None


def _summary(report: FinetuneReport) -> str:
    what = f"arguments of {report.tool}" if report.tool else report.objective
    dropped = f" ({report.dropped_kept} left out by keep, {report.dropped_long} too long)"
    return "\n".join(
        (
            f"{report.output}: {what}",
            f"{report.samples} samples{dropped if report.dropped_kept or report.dropped_long else ''}",
            f"{report.steps} steps, {report.learnt} tokens learnt, {report.seconds:.1f} s",
            f"loss {report.losses[0]:.3f} {sparkline(report.losses)} {report.losses[-1]:.3f}",
        )
    )


def sparkline(values: tuple[float, ...]) -> str:
    """The values as a row of bars, averaged where there are more than fit."""
    width = min(_CURVE_WIDTH, len(values))
    edges = [len(values) * index // width for index in range(width + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(_BARS[int((mean - low) / span * (len(_BARS) - 1))] for mean in means)
