"""`dualtune-edge finetune`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from dualtune_edge.export.finetune.progress import shown
from dualtune_edge.export.finetune.settings import TARGETS, FinetuneSettings, Objective, adapter_name
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import refuse_existing
from dualtune_edge.toolkit.validation import validate

if TYPE_CHECKING:
    from dualtune_edge.export.finetune.estimate import Estimate
    from dualtune_edge.export.finetune.report import FinetuneReport, Score
    from dualtune_edge.export.finetune.whole_spec.planning import Planned
    from dualtune_edge.export.finetune.whole_spec.training import WholeReport

_BARS: Final = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH: Final = 40  # characters


def finetune(
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="A dualtune.yaml: train all adapters that it names.")
    ] = None,
    *,
    objective: Annotated[
        Objective | None, typer.Option("--objective", "--stage", help="What the adapter learns.")
    ] = None,
    base: Annotated[Path | None, typer.Option(metavar="DIR", help="The base model's folder.")] = None,
    tools: Annotated[Path | None, typer.Option(metavar="FILE", help="The toolset's tool list.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Trajectories: one JSON object a line.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the adapter goes.")
    ] = None,
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
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Conversations to measure with: the step that has most right is kept."),
    ] = None,
    held_out_share: Annotated[float, typer.Option(help="Hold out this share of the data instead.")] = 0.0,
    measure_every: Annotated[
        int | None, typer.Option(help="Steps between two measurements; default: an epoch.")
    ] = None,
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
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute activations twice instead of keeping them.")
    ] = False,
    base_dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="In which the base is held in memory.")
    ] = "float32",
    base_bits: Annotated[
        int | None, typer.Option(metavar="4", help="Hold the base's linear layers in 4 bits (extra `bitsandbytes`).")
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "adamw-8bit"], typer.Option(help="With its moments in 8 bits (extra `bitsandbytes`), or not.")
    ] = "adamw",
    seed: Annotated[int, typer.Option(help="Of initialisation, order and dropout.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch; default: the physical cores.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints; default: a minute.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how long it will take and how much memory, and train nothing.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Train adapters by decoupled fine-tuning.

    One, or all that a dualtune.yaml names, or those of an objective. Of the trajectories, toolset learns the names of
    the spec's toolsets, selection the tools' names, arguments the arguments of one tool, joint whole calls, answer the
    assistant's texts. Of a spec, adapters that are there already are passed over, and an interrupted one goes on.

    Example:
        dualtune-edge finetune --objective selection --base qwen --tools git.json --data git.jsonl -o adapters/selection
        dualtune-edge finetune dualtune.yaml --data trajectories.jsonl

    """
    values = locals() | {"keep": dict(map(_share, keep or ())), "targets": tuple(target or TARGETS)}
    for name in ("target", "as_json", "spec", "dry_run"):
        del values[name]  # the other options have the names of the settings
    values = {name: value for name, value in values.items() if value is not None}
    if spec:
        _train_spec(spec, values, dry_run=dry_run, as_json=as_json)
        return
    if objective == "toolset":
        raise SpecError(
            "--objective toolset",
            found="no spec",
            expected="a dualtune.yaml, whose toolsets are chosen among, with `toolset`, the adapter's folder",
            fix="Give it: dualtune-edge finetune dualtune.yaml --objective toolset",
        )
    settings = validate(FinetuneSettings, values, where="finetune", error=SpecError)
    _quiet()
    from dualtune_edge.export.finetune import train
    from dualtune_edge.export.finetune.estimate import estimate

    refuse_existing(settings.output)
    _say_trial()
    with train.opened(settings) as (loaded, processes):
        run_data = train.RunData.read(settings, loaded)
        needed = estimate([run_data], loaded, processes)
        if dry_run:
            _print_estimate(needed, as_json=as_json)
            return
        _say_estimate(needed)
        with shown() as on_event:
            report = train.train(run_data, loaded, processes, on_event)
    _result(report, _summary(report), as_json=as_json)


def _say_trial() -> None:
    from dualtune_edge.export.finetune.processes import speaks

    if speaks():
        console.echo("reading the data and trying some steps, to say what all will take", err=True)


def _say_estimate(needed: Estimate) -> None:
    """Say it on stderr, in one of several processes alone."""
    from dualtune_edge.export.finetune.estimate_text import shortage, summary
    from dualtune_edge.export.finetune.processes import speaks

    if speaks():
        if warning := shortage(needed):
            console.warn(warning)
        console.echo(summary(needed), err=True)


def _print_estimate(needed: Estimate, *, as_json: bool) -> None:
    """Print it, in one of several processes alone."""
    from dualtune_edge.export.finetune.estimate_text import shortage, table
    from dualtune_edge.export.finetune.processes import speaks

    if speaks():
        of_samples = (text for adapter in needed.adapters for text in adapter.warnings)
        for warning in dict.fromkeys((*of_samples, shortage(needed))):
            if warning:
                console.warn(warning)
        console.result(needed, table(needed), as_json=as_json)


def _result(report: FinetuneReport | WholeReport, text: str, *, as_json: bool) -> None:
    """Print the report, in one of several processes alone."""
    from dualtune_edge.export.finetune.processes import speaks

    if speaks():
        console.result(report, text, as_json=as_json)


def _quiet() -> None:
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of an old name that PEFT uses
    logging.disable_progress_bar()


def _train_spec(path: Path, options: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> None:
    """Train all adapters of a spec, or estimate that; `options`: of every run, by the names of the settings."""
    for name in ("base", "tools", "output", "tool", "toolset"):
        if name in options:
            raise SpecError(
                f"--{name}", found="it beside a spec", expected="what the spec says", fix="Leave one of them out."
            )
    from dualtune_edge.export.finetune.processes import speaks
    from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
    from dualtune_edge.export.finetune.whole_spec.foreign import foreign_lines
    from dualtune_edge.export.finetune.whole_spec.keep import refuse_unheard, shares_of
    from dualtune_edge.export.finetune.whole_spec.planning import planned
    from dualtune_edge.export.finetune.whole_spec.training import estimate_all, train_all
    from dualtune_edge.export.spec.document import read_spec

    spec = read_spec(path, trained=False)
    toolsets = [
        {"name": source.name, "description": source.description, "tools": source.tools} for source in spec.toolsets
    ]

    def settings_of(adapter: Planned) -> FinetuneSettings:
        own: dict[str, object] = {"data": None}
        if adapter.toolset is None:
            own |= {"toolsets": adapter.sources}
        else:
            (source,) = adapter.sources
            own |= {"tools": source.tools, "data": source.data, "toolset": source.name if source.named else None}
        own |= {
            "objective": adapter.objective,
            "base": spec.base,
            "output": adapter.output,
            "tool": adapter.tool,
            "all_toolsets": toolsets,
            "own_toolset": adapter.toolset,
            "template": options.get("template", adapter.template),
            "no_tool": spec.no_tool,
            "keep": shares_of(adapter, options["keep"], spec.no_tool),
        }
        return validate(FinetuneSettings, {**options, **own}, where="finetune", error=SpecError)

    def say(adapter: Planned) -> None:
        if speaks():
            console.echo(adapter_name(adapter.objective, adapter.tool, adapter.toolset), err=True)

    files = TrajectoryFiles()
    adapters = planned(spec, options.get("data"), files, options.get("objective"))
    refuse_unheard(options["keep"], adapters, spec.no_tool)
    for warning in foreign_lines(spec, options.get("data"), adapters, files):
        if speaks():
            console.warn(warning)
    _quiet()
    _say_trial()
    if dry_run:
        _print_estimate(estimate_all(adapters, settings_of, files), as_json=as_json)
        return
    with shown("the same command") as on_event:
        report = train_all(adapters, settings_of, files, on_estimate=_say_estimate, on_adapter=say, on_event=on_event)
    _result(report, _table(report), as_json=as_json)


def _table(report: WholeReport) -> str:
    """A line an adapter."""
    names = [adapter_name(row.objective, row.tool, row.toolset) for row in report.adapters]
    width = max(map(len, names))
    lines = []
    for name, row in zip(names, report.adapters, strict=True):
        made = f"{row.samples} samples, {row.steps} steps, loss {row.loss:.3f}, {row.seconds:.0f} s" if row.loss else ""
        right = f", {_right(row.held_out)}" if row.held_out else ""
        lines.append(f"{name:{width}}  {made or row.outcome}{right}")
    return "\n".join(lines)


def _right(score: Score) -> str:
    return f"{score.right} of {score.samples} held out right ({score.share:.1%}) at step {score.step}"


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
            *([f"{_right(report.kept_score)}, which is kept"] if report.kept_score else []),
        )
    )


def sparkline(values: tuple[float, ...]) -> str:
    """The values as a row of bars, averaged where there are more than fit."""
    width = min(_CURVE_WIDTH, len(values))
    edges = [len(values) * index // width for index in range(width + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(_BARS[int((mean - low) / span * (len(_BARS) - 1))] for mean in means)
