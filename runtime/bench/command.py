"""`dualtune-edge bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dualtune_edge.runtime.bench.measure import Wanted
from dualtune_edge.runtime.bench.measure import bench as measure
from dualtune_edge.runtime.bench.task import WantedTasks, bench_tasks
from dualtune_edge.runtime.bench.text import describe, describe_tasks
from dualtune_edge.runtime.bench.waterfall import write_waterfall
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.engines.engine import EngineKind
from dualtune_edge.runtime.options import BundleFolder, Copied, TrustFile
from dualtune_edge.runtime.variants import Ways, ways
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.errors import DataError


def bench(
    bundle: BundleFolder,
    *,
    requests: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Conversations, one a line, as `finetune` reads them; default: made up."),
    ] = None,
    task: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Replay recorded tasks in place of single calls.")
    ] = None,
    calls: Annotated[
        int, typer.Option(min=1, help="Measure so many requests (or tasks), spread evenly over FILE.")
    ] = 10,
    free: Annotated[bool, typer.Option(help="Measure the agent's own answers too.")] = True,
    copied: Copied = True,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw one gold call as SVG.")] = None,
    engine: Annotated[EngineKind, typer.Option(help="The library that runs it: onnxruntime or its genai.")] = "ort",
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="A profile's name or .toml file; default: the bundle's own.")
    ] = None,
    trust: TrustFile = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Use so many threads, whatever the profile says.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Measure what a bundle's calls cost here.

    Gold calls are replayed: the model is made to decide as the request's own call does, so every run does the same
    work, and the naive path (no state kept, token by token) does it once more to compare. Free calls are what the
    agent itself answers. Nothing else should run meanwhile.

    With --task whole conversations are replayed turn by turn, as recorded: seconds a turn, the tokens computed for each
    that the conversation grew by, and the bytes of KV states.

    Example:
        dualtune-edge bench my-bundle --requests heldout.jsonl --plot call.svg

    """

    def resolve(opened: Bundle) -> Ways:
        found = ways(opened, profile=profile, threads=threads)
        for warning in found.best.resolution.warnings:
            console.warn(warning)
        return found

    if task:
        if requests or plot:
            raise DataError(
                "--task", found="--requests or --plot beside it", expected="one of them", fix="Measure them one by one."
            )
        with Console(stderr=True).status("") as status:
            replayed = bench_tasks(bundle, resolve, WantedTasks(engine, task, calls, trust), status.update)
        console.result(replayed, describe_tasks(replayed), as_json=as_json)
        return
    with Console(stderr=True).status("") as status:
        report = measure(bundle, resolve, Wanted(engine, requests, calls, free, trust, copied=copied), status.update)
    if plot:
        gold = sorted(report.passes[0].calls, key=lambda call: (len(call.stages), call.ms))
        longest = [call for call in gold if len(call.stages) == len(gold[-1].stages)]
        write_waterfall(plot, longest[len(longest) // 2])
    console.result(report, describe(report), as_json=as_json)
